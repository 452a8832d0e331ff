"""Whose metrics are called what: one table per source.

To teach the reader a new name, add it to its source's table; a new source, a new module here and
an entry in `SOURCES`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from serving.telemetry.names import dcgm, dynamo, gate, llm_d, sglang, smg, vllm, vllm_router
from serving.telemetry.quantities import Kind, Names
from serving.telemetry.signals import Source, TargetKind


@dataclass(frozen=True, slots=True)
class SourceNames:
    """One source.

    Parameters
    ----------
    prefixes : tuple of str
        By which its pages are told from others', in the spelling of `spelled_alike`.
    model_labels : tuple of str
        Labels that carry the served model's name.
    """

    kind: TargetKind
    names: Names
    prefixes: tuple[str, ...]
    model_labels: tuple[str, ...] = ("model_name", "model")


SOURCES: dict[Source, SourceNames] = {
    Source.GATE: SourceNames(TargetKind.GATE, gate.NAMES, gate.PREFIXES),
    Source.SMG: SourceNames(TargetKind.ROUTER, smg.NAMES, smg.PREFIXES, ("model_id", "model")),
    Source.VLLM_ROUTER: SourceNames(
        TargetKind.ROUTER, vllm_router.NAMES, vllm_router.PREFIXES, ("model",)
    ),
    Source.LLM_D: SourceNames(TargetKind.ROUTER, llm_d.NAMES, llm_d.PREFIXES),
    Source.DYNAMO: SourceNames(TargetKind.ROUTER, dynamo.NAMES, dynamo.PREFIXES),
    Source.VLLM: SourceNames(TargetKind.ENGINE, vllm.NAMES, vllm.PREFIXES),
    Source.SGLANG: SourceNames(TargetKind.ENGINE, sglang.NAMES, sglang.PREFIXES),
    Source.DCGM: SourceNames(TargetKind.HARDWARE, dcgm.NAMES, dcgm.PREFIXES, ()),
}
"""In the order in which a page is tried when its source is not given."""


def wanted_names(kinds: Iterable[Kind] = Kind) -> Iterable[str]:
    """Names of all series that some table reads, in their sources' spelling."""
    for table in SOURCES.values():
        for quantity, metrics in table.names.items():
            if quantity.kind not in kinds:
                continue
            for metric in metrics:
                for series in (*metric.of, *metric.times, *metric.over):
                    if quantity.kind is Kind.HISTOGRAM:
                        yield from (f"{series.name}_{end}" for end in ("bucket", "count", "sum"))
                    else:
                        yield series.name
