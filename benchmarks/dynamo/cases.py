"""What is compared: traces, fleets, features, and the switches that turn one feature off."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from benchmarks.dynamo.timing import INSTANT_BYTES_PER_S, Engine, Timing
from planner.domain.slo import Slo


class Router(StrEnum):
    """How a replica is chosen; each simulator's own policy of that kind."""

    ROUND_ROBIN = "round robin"
    PREFIX_AWARE = "prefix aware"


class TraceName(StrEnum):
    """The public traces."""

    CONVERSATION = "conversation"
    AZURE = "azure"


TRACE_FILES = {
    TraceName.CONVERSATION: "mooncake_conversation_trace.jsonl",
    TraceName.AZURE: "AzureLLMInferenceTrace_conv.csv",
}
"""Mooncake's (12,031 requests in an hour, long prompts) and Azure's of 2023 (19,366)."""

SLOS = {
    TraceName.CONVERSATION: Slo(model="32b", ttft_s=2.0, tpot_s=0.02),
    TraceName.AZURE: Slo(model="32b", ttft_s=0.3, tpot_s=0.015),
}

TIMING = Timing(
    prefill_base_s=0.008,
    prefill_token_s=6.25e-5,
    decode_base_s=0.012,
    decode_sequence_s=2e-5,
    decode_context_token_s=3.9e-8,
)
"""Of the size of a 32B model on two H100: 16,000 prompt tokens/s; 12 ms to read the weights and
39 ns a token of context (256 KiB over two memories of 3.35 TB/s). No measurement of anything."""

CURVED = replace(TIMING, prefill_token2_s=1e-9)
"""A prompt of 64k tokens takes twice as long as by its tokens alone: attention."""

ENGINE = Engine(
    kv_capacity_tokens=307_200,
    kv_bytes_per_token=262_144,
    kv_block_tokens=16,
    max_num_seqs=256,
    max_num_batched_tokens=8_192,
    transfer_bytes_per_s=50e9,
)
"""80 GB of KV cache in vLLM's blocks of 16 tokens, and vLLM's budget of 8,192 tokens a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run of both simulators.

    Parameters
    ----------
    distinct_arrivals : bool
        Requests that the trace's clock puts at one instant follow each other by a millisecond.
    """

    trace: TraceName
    prefill: int = 0
    decode: int = 0
    aggregated: int = 0
    router: Router = Router.ROUND_ROBIN
    prefix_cache: bool = True
    distinct_arrivals: bool = False
    timing: Timing = TIMING
    engine: Engine = ENGINE

    @property
    def name(self) -> str:
        """`4P+2D` or `6A`, and what is special."""
        fleet = f"{self.aggregated}A" if self.aggregated else f"{self.prefill}P+{self.decode}D"
        special = ["prefix aware"] if self.router is Router.PREFIX_AWARE else []
        special += ["curved prefill"] if self.timing.prefill_token2_s else []
        return ", ".join([fleet, *special])


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """A feature, and how a case is without it."""

    name: str
    off: Callable[[Case], Case]


SWITCHES = (
    Switch(
        name="routers of their own (round robin instead)",
        off=lambda c: replace(c, router=Router.ROUND_ROBIN),
    ),
    Switch(
        name="prefill's curvature",
        off=lambda c: replace(c, timing=replace(c.timing, prefill_token2_s=0.0)),
    ),
    Switch(
        name="prefill's fixed part",
        off=lambda c: replace(c, timing=replace(c.timing, prefill_base_s=0.0)),
    ),
    Switch(name="prefix cache", off=lambda c: replace(c, prefix_cache=False)),
    Switch(
        name="KV transfer",
        off=lambda c: replace(
            c, engine=replace(c.engine, transfer_bytes_per_s=INSTANT_BYTES_PER_S)
        ),
    ),
    Switch(
        name="bound on KV cache",
        off=lambda c: replace(c, engine=replace(c.engine, kv_capacity_tokens=20_000_000)),
    ),
    Switch(
        name="token budget",
        off=lambda c: replace(c, engine=replace(c.engine, max_num_batched_tokens=4_000_000)),
    ),
    Switch(
        name="prompts computed together",
        off=lambda c: replace(c, engine=replace(c.engine, prompts_together=1)),
    ),
    Switch(
        name="decode's time per sequence",
        off=lambda c: replace(c, timing=replace(c.timing, decode_sequence_s=0.0)),
    ),
    Switch(
        name="arrivals at one instant",
        off=lambda c: replace(c, distinct_arrivals=True),
    ),
)
"""Tried in this order where the two differ."""


def cases_of(trace: TraceName) -> list[Case]:
    """Fleets from nearly too small to ample, of both kinds; routers of their own; a curve."""
    if trace is TraceName.CONVERSATION:
        pairs, singles = [(4, 4), (6, 5), (8, 6)], [8, 12]
    else:
        pairs, singles = [(1, 1), (2, 2), (4, 3)], [1, 2, 4]
    shared = trace is TraceName.CONVERSATION  # Azure's trace does not say which prefixes
    cases = [Case(trace=trace, prefill=p, decode=d, prefix_cache=shared) for p, d in pairs]
    cases += [Case(trace=trace, aggregated=a, prefix_cache=shared) for a in singles]
    special = [cases[1], cases[-1]]
    if shared:
        cases += [replace(c, router=Router.PREFIX_AWARE) for c in special]
        cases += [replace(c, timing=CURVED) for c in special]
    return cases
