"""Poolwise's own gate: it sees every request by itself, as its user has it."""

from serving.telemetry.quantities import Metric, Names, Quantity, Series, named

PREFIXES = ("poolwise_gate_",)

_REQUESTS = "poolwise_gate_requests_total"
_COMPLETE = (("outcome", ("complete",)),)
_MISSED = (("outcome", ("failed", "shed")),)


def _tokens(direction: str) -> tuple[Metric, ...]:
    series = Series("poolwise_gate_tokens_total", where=(("direction", (direction,)),))
    return (Metric(of=(series,)),)


NAMES: Names = {
    Quantity.RUNNING: named("poolwise_gate_in_flight"),
    Quantity.WAITING: named("poolwise_gate_waiting"),
    Quantity.HIT_RATIO: named("poolwise_gate_cached_ratio"),
    Quantity.REQUESTS: (Metric(of=(Series(_REQUESTS, where=_COMPLETE),)),),
    Quantity.FAILED: (Metric(of=(Series(_REQUESTS, where=_MISSED),)),),
    Quantity.JUDGED: named("poolwise_gate_judged_total"),
    Quantity.MET: (Metric(of=(Series("poolwise_gate_judged_total", where=(("met", ("yes",)),)),)),),
    Quantity.INPUT_TOKENS: _tokens("input"),
    Quantity.OUTPUT_TOKENS: _tokens("output"),
    Quantity.TTFT_S: named("poolwise_gate_ttft_seconds"),
    Quantity.ITL_S: named("poolwise_gate_itl_seconds"),
    Quantity.TPOT_S: named("poolwise_gate_tpot_seconds"),
    Quantity.E2E_S: named("poolwise_gate_e2e_seconds"),
}
