"""Which replica shapes to offer: every combination that a spec asks for, and why some cannot run.

A candidate is dropped here only for what no workload changes: number formats judged too poor, a
replica larger than a node, memory. Shapes that run but never help a workload are found later, in
the problem itself (`planner.optimize.dominance`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product
from typing import Self

from planner.capacity.memory import LEAST_KV_TOKENS, MemoryFit, memory_fit
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import Accelerator
from planner.domain.model import Dtype, Model, Quality
from planner.domain.profile import Profile
from planner.domain.spec import ShapeSearch

_SMALLER = (Dtype.FP8, Dtype.INT4)
"""Formats to suggest where weights or KV cache do not fit."""


class Verdict(StrEnum):
    """What became of a candidate."""

    KEPT = "kept"
    RULED_OUT = "ruled_out"
    DOES_NOT_FIT = "does_not_fit"
    NO_PROFILE = "no_profile"
    DOMINATED = "dominated"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A shape that was asked for, and what became of it.

    Parameters
    ----------
    quality : Quality
        The worse of what its formats are judged.
    memory : MemoryFit or None
        None where the accelerator's memory is not known.
    profile : Profile or None
        What describes it; None: nothing does.
    reason : str
        Why it is not kept; empty: it is.
    missing_bytes : float
        Memory that every accelerator of it lacks.
    dominated_by : str
        Label of the shape that does all that it does; empty: none.
    """

    shape: ReplicaShape
    quality: Quality
    memory: MemoryFit | None
    profile: Profile | None
    verdict: Verdict = Verdict.KEPT
    reason: str = ""
    missing_bytes: float = 0.0
    dominated_by: str = ""

    @property
    def is_kept(self) -> bool:
        """Whether it may be planned."""
        return self.verdict is Verdict.KEPT

    def dropped(self, verdict: Verdict, reason: str) -> Self:
        """The same candidate, not kept for this reason."""
        return replace(self, verdict=verdict, reason=reason)

    @property
    def kv_tokens(self) -> int | None:
        """KV cache of one replica, tokens: as measured, else by arithmetic; None: not known."""
        if self.profile is not None:
            return self.profile.limits.kv_capacity_tokens
        return None if self.memory is None else self.memory.kv_tokens

    def requests(self, context_tokens: int) -> int | None:
        """Requests of this length whose KV cache one replica holds at once; None: not known."""
        return None if self.kv_tokens is None else self.kv_tokens // context_tokens


def candidates(
    search: ShapeSearch,
    model: Model,
    accelerators: Iterable[Accelerator],
    profile_of: Callable[[ReplicaShape], Profile | None],
) -> tuple[Candidate, ...]:
    """Every shape of a search, those that cannot run with the reason.

    Parameters
    ----------
    profile_of : callable
        The profile of a shape, None where there is none. What has a profile runs, whatever the
        arithmetic says.
    """
    on = {a.name: a for a in accelerators}
    return tuple(
        candidate(
            shape,
            model,
            on[shape.accelerator],
            profile_of(shape),
            quality=search.quality_of(shape),
            min_quality=search.min_quality,
            context_tokens=search.context_tokens,
        )
        for shape in shapes_of(search)
    )


def shapes_of(search: ShapeSearch) -> Iterator[ReplicaShape]:
    """All combinations, the plainest first."""
    kinds = product(
        search.roles,
        search.accelerators,
        search.weight_dtypes,
        search.kv_dtypes,
        search.pp,
        search.tp,
        search.max_num_batched_tokens,
        search.max_num_seqs,
    )
    for role, accelerator, weights, kv, pp, tp, chunk, seqs in kinds:
        yield ReplicaShape(
            role=role,
            model=search.model,
            accelerator=accelerator,
            tp=tp,
            pp=pp,
            weight_dtype=weights,
            kv_dtype=kv,
            max_num_batched_tokens=chunk,
            max_num_seqs=seqs,
        )


def candidate(
    shape: ReplicaShape,
    model: Model,
    accelerator: Accelerator,
    profile: Profile | None,
    *,
    quality: Quality = Quality.REFERENCE,
    min_quality: Quality = Quality.LOSSY,
    context_tokens: int | None = None,
) -> Candidate:
    """One shape, looked at: whether it can run and hold a request of so many tokens."""
    known = accelerator.memory_bytes
    memory = None if known is None else memory_fit(model, shape, known)
    found = Candidate(shape=shape, quality=quality, memory=memory, profile=profile)
    if quality.steps_down > min_quality.steps_down:
        reason = f"quality {quality} is below min_quality {min_quality}"
        return found.dropped(Verdict.RULED_OUT, reason)
    if fault := structural_fault(shape, model, accelerator):
        return found.dropped(Verdict.RULED_OUT, fault)
    if context_tokens is not None and context_tokens > model.max_context_tokens:
        reason = f"{model.name} takes {model.max_context_tokens:,} tokens at the most"
        return found.dropped(Verdict.RULED_OUT, reason)
    if profile is not None:
        return _as_profiled(found, profile, context_tokens)
    return _by_arithmetic(found, context_tokens)


def _as_profiled(found: Candidate, profile: Profile, context_tokens: int | None) -> Candidate:
    held = profile.limits.kv_capacity_tokens
    if held >= (context_tokens or 0):
        return found
    return found.dropped(Verdict.DOES_NOT_FIT, f"its profile holds {held:,} tokens")


def _by_arithmetic(found: Candidate, context_tokens: int | None) -> Candidate:
    if found.memory is None:
        return found
    missing = found.memory.missing_bytes(max(context_tokens or 0, LEAST_KV_TOKENS))
    if missing == 0:
        return found
    reason = memory_fault(found.memory, missing, context_tokens)
    return replace(found, missing_bytes=missing).dropped(Verdict.DOES_NOT_FIT, reason)


def structural_fault(shape: ReplicaShape, model: Model, accelerator: Accelerator) -> str:
    """Why no engine runs this shape, memory aside; empty: nothing stands against it."""
    if shape.accelerators > accelerator.per_node:
        return f"{shape.accelerators} accelerators, but a node has {accelerator.per_node}"
    if shape.pp > model.layers:
        return f"{model.layers} layers do not make {shape.pp} stages"
    if not divides_heads(model, shape.tp):
        return f"tp {shape.tp} does not divide {heads_text(model)}"
    if shape.pp > 1 and shape.role is not Role.AGGREGATED:
        return "vLLM's NIXL connector moves no KV cache with pp above 1 (vLLM issue 52913)"
    return ""


def divides_heads(model: Model, tp: int) -> bool:
    """Whether the heads can be spread over so many accelerators.

    Query heads have to divide evenly; KV heads too, or be copied evenly (vLLM,
    `ModelConfig.verify_with_parallel_config`).
    """
    whole = model.attention_heads is None or model.attention_heads % tp == 0
    return whole and (model.kv_heads % tp == 0 or tp % model.kv_heads == 0)


def heads_text(model: Model) -> str:
    """The heads that tensor parallelism has to divide, as in `64 attention and 8 KV heads`."""
    if model.attention_heads is None:
        return f"{model.kv_heads} KV heads"
    return f"{model.attention_heads} attention and {model.kv_heads} KV heads"


def degrees_for(model: Model, per_node: int) -> tuple[int, ...]:
    """Tensor parallel degrees within a node: the powers of two that divide the heads."""
    powers = (1 << k for k in range(per_node.bit_length()))
    return tuple(tp for tp in powers if tp <= per_node and divides_heads(model, tp))


def memory_fault(memory: MemoryFit, missing: float, context_tokens: int | None) -> str:
    """What does not fit and by how much, per accelerator."""
    asked = max(context_tokens or 0, LEAST_KV_TOKENS)
    return f"{memory.text}; {missing:,.0f} bytes are missing for {asked:,} tokens"


def nothing_fits(
    search: ShapeSearch,
    model: Model,
    accelerators: Iterable[Accelerator],
    found: Sequence[Candidate],
) -> str:
    """Why none of the candidates can run: the closest one, what it lacks and what would fit."""
    lacking = [c for c in found if c.missing_bytes > 0 and c.memory is not None]
    if not lacking:
        reasons = dict.fromkeys(c.reason for c in found)
        return f"no shape of {model.name} can run: {'; '.join(reasons)}"
    closest = min(lacking, key=lambda c: c.missing_bytes * c.shape.accelerators)
    accelerator = next(a for a in accelerators if a.name == closest.shape.accelerator)
    ways = list(_ways_out(closest, model, accelerator, search.context_tokens))
    would = " or ".join(ways) or "no more tp, smaller format or shorter context: more memory"
    return (
        f"no shape of {model.name} fits. The closest, {closest.shape.label}: {closest.reason} on "
        f"each accelerator. What would fit: {would}"
    )


def _ways_out(
    closest: Candidate, model: Model, accelerator: Accelerator, context_tokens: int | None
) -> Iterator[str]:
    """Single changes that make the shape fit."""
    shape, memory = closest.shape, accelerator.memory_bytes or 0.0
    needed = max(context_tokens or 0, LEAST_KV_TOKENS)

    def fits(changed: ReplicaShape) -> bool:
        return memory_fit(model, changed, memory).missing_bytes(needed) == 0

    own = model.stored_as(weight_dtype=shape.weight_dtype, kv_dtype=shape.kv_dtype)
    wider = [tp for tp in degrees_for(model, accelerator.per_node // shape.pp) if tp > shape.tp]
    yield from (f"tp {tp}" for tp in wider if fits(replace(shape, tp=tp)))
    for dtype in _SMALLER:
        smaller = dtype.bytes_per_value < own.weight_dtype.bytes_per_value
        if smaller and fits(replace(shape, weight_dtype=dtype)):
            yield f"{dtype} weights"
    smaller = Dtype.FP8.bytes_per_value < own.kv_dtype.bytes_per_value
    if smaller and fits(replace(shape, kv_dtype=Dtype.FP8)):
        yield f"{Dtype.FP8} KV cache"
    held = closest.memory.kv_tokens if closest.memory is not None else 0
    if held >= LEAST_KV_TOKENS:
        yield f"a context of at most {held:,} tokens"
