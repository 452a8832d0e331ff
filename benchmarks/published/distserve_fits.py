"""DistServe's fits of times and memory as profiles of ours, and the lengths of its datasets.

A prompt step takes a + b sum(l) + c sum(l^2) ms, a decode step a + b sum(context) + c batch, in a
small and a large regime of batches, by tensor parallel degree (tp); KV tokens are given by tp and
pipeline parallel degree (pp). How an instance of theirs is said in our words:

* pp stages work on pp batches at once. A decode step at batch b is theirs at b / pp. A prompt holds
  up others for its first stage only; the other stages are a delay, which we call its transfer.
* The prefill instance makes the first token itself, so TTFT holds neither a decode step nor the
  transfer to decode; that takes its time over NVLink from a decode slot.

References
----------
Zhong et al., *DistServe*, OSDI 2024, arXiv 2401.09670, appendix A; LLMServe/DistServe, simdistserve
(Apache-2.0).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.capacity.deployment import role_target
from planner.capacity.pool import sustained_rps
from planner.domain.fleet import Role
from planner.domain.profile import (
    EngineLimits,
    LifecycleTimes,
    Profile,
    ProfileKind,
    Provenance,
    TimeTable,
    TransferTime,
)
from planner.domain.slo import Slo
from planner.domain.workload import Shape
from profiler.imports.distserve import (
    ACCELERATOR,
    ARCHITECTURES,
    KV_FILE,
    LONGEST_TOKENS,
    MOST_SEQUENCES,
    PUBLISHED_AT,
    Times,
    read_kv_tokens,
    read_times,
)

GPUS_PER_NODE = 8
NVLINK_BYTES_PER_S = 300e9
"""Of one direction between A100s of a node."""
PROMPT_BATCH_TOKENS = 8_192
"""`--context-max-tokens-per-batch` of their server."""
NO_TIME_S = 1e-9


LENGTHS = {
    "ShareGPT": (
        (38, 30), (27, 183), (34, 589), (185, 12), (171, 40), (158, 342), (330, 8), (319, 122),
        (341, 429), (467, 13), (456, 134), (445, 433), (633, 10), (615, 237), (614, 534), (816, 12),
        (793, 79), (809, 309), (956, 28), (984, 233), (926, 517), (1193, 16), (1183, 123),
        (1264, 574), (1446, 18), (1442, 64), (1410, 270), (1645, 9), (1801, 32), (1732, 143),
    ),
    "HumanEval": (
        (71, 16), (80, 76), (104, 33), (102, 119), (121, 36), (125, 126), (140, 38), (139, 164),
        (161, 50), (153, 114), (187, 33), (185, 135), (221, 83), (227, 203), (357, 69), (357, 249),
    ),
    "LongBench": ((1738.3, 90.7),),
}  # fmt: skip
"""Prompt and answer tokens of equally many requests each.

ShareGPT: means of ten parts by prompt and three by answer of the first 220 requests that their
simulator was aligned with (`distserve-600-6.exp` of the repository). HumanEval: of eight parts by
two of the 164 problems, words and spaces counted, scaled to the means of figure 7 (171.3 + 98.2).
LongBench: the means of figure 7, as nothing else is published; with 15 s for TTFT their spread
matters little. Both means of figure 7 were quoted from memory: the figure could not be opened where
this was written, and a count over HumanEval's source gave 162 + 94.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """Degrees of one instance."""

    tp: int
    pp: int

    @property
    def gpus(self) -> int:
        """GPUs of the instance."""
        return self.tp * self.pp


def shape_of(dataset: str) -> Shape:
    """The lengths of a dataset."""
    lengths = np.array(LENGTHS[dataset], dtype=np.float64)
    return Shape(
        input_tokens=lengths[:, 0],
        output_tokens=lengths[:, 1],
        cached_tokens=np.zeros(len(lengths)),
        weight=np.full(len(lengths), 1 / len(lengths)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked of every instance."""

    shape: Shape
    slo: Slo
    decode_timed_at: int | None = None

    def admits(self, role: Role, instance: Parallel) -> bool:
        """Where decode is timed at a prefill instance's degree, prefill instances have that."""
        own = role is Role.DECODE or self.decode_timed_at is None
        return own or instance.tp == self.decode_timed_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Fits:
    """DistServe's fits of one model: coefficients by tp, KV tokens by (tp, pp).

    Parameters
    ----------
    decode_as_prefill : bool
        Decode steps are timed at the tensor parallel degree of the *prefill* instance, and each of
        pp batches on their way may fill all KV tokens: what DistServe's published simulator does
        (`simulate_dist.py` sets TP_Decode=TP_Prefill; `Worker._enter_decodes` limits a batch).
    """

    model: str
    times: dict[int, Times]
    kv_tokens: dict[tuple[int, int], int]
    decode_as_prefill: bool = False

    def instances(self) -> Iterator[Parallel]:
        """Every instance that fits into a node beside another one."""
        for tp, pp in self.kv_tokens:
            if tp in self.times and tp * pp < GPUS_PER_NODE:
                yield Parallel(tp=tp, pp=pp)

    def profile(self, role: Role, instance: Parallel, *, timed_at: int | None = None) -> Profile:
        """An instance in a role as a profile of ours.

        Parameters
        ----------
        timed_at : int or None
            The tensor parallel degree whose fit is taken; None: its own.
        """
        tp, pp = instance.tp, instance.pp
        kv_tokens = self.kv_tokens[tp, pp] * (pp if self.decode_as_prefill else 1)
        kv_bytes = ARCHITECTURES[self.model].kv_bytes_per_token
        times = self.times[timed_at or tp]
        return Profile(
            profile_id=f"distserve-{role}-tp{tp}-pp{pp}",
            model=self.model,
            accelerator=ACCELERATOR,
            tp=tp,
            pp=pp,
            roles=(role,),
            prefill=times.prefill_table(stages=pp),
            decode_step=times.decode_table(stages=pp) if role is Role.DECODE else _no_step(),
            transfer=(
                TransferTime(base_s=0.0, bandwidth_bytes_per_s=NVLINK_BYTES_PER_S)
                if role is Role.DECODE
                else _later_stages(times, pp, kv_bytes)
            ),
            first_token_s=0.0,
            limits=EngineLimits(
                kv_capacity_tokens=kv_tokens,
                kv_bytes_per_token=kv_bytes,
                max_num_seqs=MOST_SEQUENCES * pp,
                max_num_batched_tokens=min(PROMPT_BATCH_TOKENS, kv_tokens),
                max_model_len=LONGEST_TOKENS,
            ),
            lifecycle=LifecycleTimes(start_cold_s=0.0, start_warm_s=0.0, flip_s=0.0, drain_s=0.0),
            provenance=Provenance(
                kind=ProfileKind.IMPORTED,
                source="DistServe, profiler-a100-80g.distserve.json",
                measured_at=PUBLISHED_AT,
                machine="A100 SXM 80 GB",
                engine="DistServe",
                points=0,
                error_ratio=0.0,
            ),
        )

    def rps(self, role: Role, instance: Parallel, count: int, load: Load) -> float:
        """Requests/s that `count` such instances sustain."""
        timed_at = load.decode_timed_at if role is Role.DECODE else None
        return sustained_rps(
            self.profile(role, instance, timed_at=timed_at),
            role,
            load.shape,
            load.slo,
            replicas=count,
            target_ratio=role_target(load.slo.attainment_ratio, disaggregated=True),
        ).sustained_rps


def read_fits(folder: Path, model: str) -> Fits:
    """Fits and KV tokens of a model from `folder`'s data."""
    source = folder / "profiles/distserve"
    return Fits(
        model=model,
        times=read_times(source / "profiler-a100-80g.distserve.json", model),
        kv_tokens=read_kv_tokens(source / KV_FILE, model),
    )


def _later_stages(times: Times, pp: int, kv_bytes: float) -> TransferTime:
    """The other stages: linear in the prompt, by the chord of the fit up to the longest."""
    a, b, c = times.prefill
    later = (pp - 1) / pp / 1e3
    token_s = later * (b + c * LONGEST_TOKENS)
    bandwidth = kv_bytes / token_s if later > 0 else np.inf
    return TransferTime(base_s=later * a, bandwidth_bytes_per_s=bandwidth)


def _no_step() -> TimeTable:
    return TimeTable(
        x_name="sequences",
        y_name="context",
        x=np.ones(1),
        y=np.zeros(1),
        seconds=np.full((1, 1), NO_TIME_S),
    )
