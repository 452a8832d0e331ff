"""What can be read, and how a source's table says where it stands."""

from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """How samples of one quantity are put together.

    count: a gauge, summed over series. ratio: a gauge, its mean over series. counter: only grows
    until its process starts anew; summed. histogram: buckets summed.
    """

    COUNT = auto()
    RATIO = auto()
    COUNTER = auto()
    HISTOGRAM = auto()


class Quantity(Enum):
    """Everything that some source tells; in seconds, tokens, bytes, watts and shares of 1."""

    RUNNING = ("running", Kind.COUNT)
    WAITING = ("waiting", Kind.COUNT)
    WAITING_FOR_KV = ("waiting_for_kv", Kind.COUNT)
    KV_USAGE_RATIO = ("kv_usage_ratio", Kind.RATIO)
    KV_CAPACITY_TOKENS = ("kv_capacity_tokens", Kind.COUNT)
    HIT_RATIO = ("hit_ratio", Kind.RATIO)

    REQUESTS = ("requests", Kind.COUNTER)
    FAILED = ("failed", Kind.COUNTER)
    JUDGED = ("judged", Kind.COUNTER)
    MET = ("met", Kind.COUNTER)
    PREEMPTIONS = ("preemptions", Kind.COUNTER)
    INPUT_TOKENS = ("input_tokens", Kind.COUNTER)
    OUTPUT_TOKENS = ("output_tokens", Kind.COUNTER)
    COMPUTED_TOKENS = ("computed_tokens", Kind.COUNTER)
    CACHED_TOKENS = ("cached_tokens", Kind.COUNTER)
    TRANSFERRED_TOKENS = ("transferred_tokens", Kind.COUNTER)
    HITS = ("hits", Kind.COUNTER)
    LOOKUPS = ("lookups", Kind.COUNTER)
    EXTERNAL_HITS = ("external_hits", Kind.COUNTER)
    EXTERNAL_LOOKUPS = ("external_lookups", Kind.COUNTER)
    TRANSFERS = ("transfers", Kind.COUNTER)
    TRANSFER_BYTES = ("transfer_bytes", Kind.COUNTER)
    TRANSFERS_FAILED = ("transfers_failed", Kind.COUNTER)
    TRANSFERS_EXPIRED = ("transfers_expired", Kind.COUNTER)

    TTFT_S = ("ttft_s", Kind.HISTOGRAM)
    ITL_S = ("itl_s", Kind.HISTOGRAM)
    TPOT_S = ("tpot_s", Kind.HISTOGRAM)
    E2E_S = ("e2e_s", Kind.HISTOGRAM)
    QUEUEING_S = ("queueing_s", Kind.HISTOGRAM)
    PREFILLING_S = ("prefilling_s", Kind.HISTOGRAM)
    DECODING_S = ("decoding_s", Kind.HISTOGRAM)
    TRANSFER_S = ("transfer_s", Kind.HISTOGRAM)
    STEP_TOKENS = ("step_tokens", Kind.HISTOGRAM)
    PROMPT_TOKENS = ("prompt_tokens", Kind.HISTOGRAM)
    ANSWER_TOKENS = ("answer_tokens", Kind.HISTOGRAM)

    ACCELERATOR_RATIO = ("accelerator_ratio", Kind.RATIO)
    MEMORY_USED_RATIO = ("memory_used_ratio", Kind.RATIO)
    MEMORY_BANDWIDTH_RATIO = ("memory_bandwidth_ratio", Kind.RATIO)
    TENSOR_RATIO = ("tensor_ratio", Kind.RATIO)
    POWER_W = ("power_w", Kind.COUNT)

    @property
    def label(self) -> str:
        """Its name in words and tables."""
        return self.value[0]

    @property
    def kind(self) -> Kind:
        """How its samples are put together."""
        return self.value[1]


def spelled_alike(name: str) -> str:
    """One spelling for all that mean the same: `vllm:x`, `vllm_x`, `x` and `x_total`.

    Exporters that may not write colons put underscores; collectors drop or add `_total`.
    """
    return name.replace(":", "_").removesuffix("_total")


@dataclass(frozen=True, slots=True)
class Series:
    """Samples of one name, where they carry some labels or none of others.

    Parameters
    ----------
    name : str
        As the source spells it.
    where : tuple of (label, values)
        Only samples with one of the values.
    unless : tuple of (label, values)
        None of those samples.
    """

    name: str
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()
    unless: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def key(self) -> str:
        """The spelling it is looked up by."""
        return spelled_alike(self.name)

    def holds(self, labels: dict[str, str]) -> bool:
        """Whether a sample with these labels is one of them."""
        return all(labels.get(k) in values for k, values in self.where) and not any(
            labels.get(k) in values for k, values in self.unless
        )


@dataclass(frozen=True, slots=True)
class Metric:
    """One way to read a quantity: scale x sum(of) x times / sum(over).

    Parameters
    ----------
    of : tuple of Series
        Those that a page lacks count nothing, but one must be there.
    times, over : tuple of Series
        All of them must be there.
    labels : tuple of str
        When given: the product of these labels' numbers, instead of the sample's value.
    scale : float
        From the source's unit to ours.
    """

    of: tuple[Series, ...]
    times: tuple[Series, ...] = ()
    over: tuple[Series, ...] = ()
    labels: tuple[str, ...] = ()
    scale: float = 1.0


Names = dict[Quantity, tuple[Metric, ...]]
"""Per quantity the ways to read it, the best first; the first that a page has is taken."""


def named(*names: str, scale: float = 1.0) -> tuple[Metric, ...]:
    """One way for each name: newer names first."""
    return tuple(Metric(of=(Series(name),), scale=scale) for name in names)
