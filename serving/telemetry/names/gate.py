"""Poolwise's own gate: it sees every request by itself, as its user has it."""

from serving.telemetry.quantities import Names, Quantity, named

PREFIXES = ("poolwise_gate_",)

NAMES: Names = {
    Quantity.RUNNING: named("poolwise_gate_inflight_requests"),
    Quantity.REQUESTS: named("poolwise_gate_requests_total"),
    Quantity.INPUT_TOKENS: named("poolwise_gate_input_tokens_total"),
    Quantity.OUTPUT_TOKENS: named("poolwise_gate_output_tokens_total"),
    Quantity.TTFT_S: named("poolwise_gate_ttft_seconds"),
    Quantity.ITL_S: named("poolwise_gate_itl_seconds"),
    Quantity.TPOT_S: named("poolwise_gate_tpot_seconds"),
    Quantity.E2E_S: named("poolwise_gate_e2e_seconds"),
}
