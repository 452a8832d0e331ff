"""What the spec's `shapes` section comes to: candidates, each with its profile or why not.

Profiles are taken where they were measured; estimates only where they are allowed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from planner.domain.errors import ProfileError
from planner.domain.fleet import ReplicaShape
from planner.domain.hardware import Accelerator
from planner.domain.model import Dtype, Model, Quality
from planner.domain.profile import Profile
from planner.domain.spec import ShapeSearch, Spec
from planner.optimize.inputs import Exclusion
from planner.optimize.problem import Problem
from planner.optimize.shapes import (
    Candidate,
    Verdict,
    candidate,
    candidates,
    degrees_for,
    divides_heads,
    heads_text,
    nothing_fits,
)
from planner.service.spec.document import QualityPart, ShapesPart
from profiler.estimate import estimate_profile

MOST_SHAPES = 1000
"""Of one entry of `shapes`; more are a slip, and take minutes."""


def search_of(
    part: ShapesPart, models: Sequence[Model], accelerators: Sequence[Accelerator]
) -> ShapeSearch:
    """The search that an entry of `shapes` describes.

    Raises
    ------
    ValueError
        Naming the field first: a degree that cannot be, a format that nobody judged.
    """
    model = next(m for m in models if m.name == part.model)
    names = part.accelerators or [a.name for a in accelerators]
    per_node = max(a.per_node for a in accelerators if a.name in names)
    degrees = tuple(dict.fromkeys(part.tp or degrees_for(model, per_node)))
    _check_degrees(model, degrees, per_node)
    _check_judged(part.quality, model, part)
    search = ShapeSearch(
        model=part.model,
        roles=tuple(dict.fromkeys(part.roles)),
        accelerators=tuple(dict.fromkeys(names)),
        tp=degrees,
        pp=tuple(dict.fromkeys(part.pp)),
        weight_dtypes=_formats(part.weight_dtypes, model.weight_dtype),
        kv_dtypes=_formats(part.kv_dtypes, model.kv_dtype),
        max_num_batched_tokens=_limits(part.max_num_batched_tokens),
        max_num_seqs=_limits(part.max_num_seqs),
        weight_quality=tuple(part.quality.weights.items()),
        kv_quality=tuple(part.quality.kv.items()),
        min_quality=part.min_quality,
        context_tokens=part.context_tokens,
    )
    if search.count > MOST_SHAPES:
        raise ValueError(
            f"model {part.model} is asked for in {search.count:,} shapes, at most "
            f"{MOST_SHAPES:,} are considered: give shorter lists"
        )
    return search


def _check_degrees(model: Model, degrees: Sequence[int], per_node: int) -> None:
    for tp in degrees:
        fitting = ", ".join(str(n) for n in degrees_for(model, per_node))
        if not divides_heads(model, tp):
            raise ValueError(
                f"tp {tp} does not divide the {heads_text(model)} of {model.name}: give some of "
                f"{fitting}"
            )
        if tp > per_node:
            raise ValueError(
                f"tp {tp} is more than a node has ({per_node}), and a tensor-parallel group does "
                f"not span nodes: give some of {fitting}"
            )


def _check_judged(quality: QualityPart, model: Model, part: ShapesPart) -> None:
    """Every format that is not the model's own has a label."""
    listed = (
        ("weights", part.weight_dtypes, model.weight_dtype, quality.weights),
        ("kv", part.kv_dtypes, model.kv_dtype, quality.kv),
    )
    for kind, dtypes, own, judged in listed:
        for dtype in dtypes or ():
            if dtype is not own and dtype not in judged:
                labels = ", ".join(Quality)
                raise ValueError(
                    f"quality does not say how good answers are with {dtype} {kind}: add "
                    f"{{{kind}: {{{dtype}: near}}}} (one of {labels}); Poolwise does not judge it"
                )


def _formats(dtypes: Sequence[Dtype] | None, own: Dtype) -> tuple[Dtype | None, ...]:
    """The formats to consider, the model's own as None."""
    return tuple(dict.fromkeys(None if d is own else d for d in dtypes or [own]))


def _limits(limits: Sequence[int] | None) -> tuple[int | None, ...]:
    return (None,) if limits is None else tuple(dict.fromkeys(limits))


def searched(spec: Spec, search: ShapeSearch, *, allow_estimates: bool) -> tuple[Candidate, ...]:
    """Every candidate of a search, those that cannot be planned with the reason.

    Parameters
    ----------
    spec : Spec
        With the profiles that it was given, before any were estimated.
    """
    model = spec.model(search.model)
    found = candidates(search, model, spec.accelerators, spec.profile_of)
    return tuple(_with_profile(spec, c, allow_estimates=allow_estimates) for c in found)


def every_candidate(
    spec: Spec, *, model: str, context_tokens: int | None, allow_estimates: bool
) -> tuple[Candidate, ...]:
    """Candidates of all searches of a model and the pools that the spec lists, each once.

    Parameters
    ----------
    spec : Spec
        With the profiles that it was given, before any were estimated.
    context_tokens : int or None
        Prompt plus answer that each has to hold; None: as the searches say.
    """
    found: dict[ReplicaShape, Candidate] = {}
    for search in (s for s in spec.shapes if s.model == model):
        wanted = context_tokens or search.context_tokens
        asked = replace(search, context_tokens=wanted)
        for one in searched(spec, asked, allow_estimates=allow_estimates):
            found.setdefault(one.shape, one)
    for shape in (b.shape for b in spec.pools if b.shape.model == model):
        if shape not in found:
            one = candidate(
                shape,
                spec.model(model),
                spec.accelerator(shape.accelerator),
                spec.profile_of(shape),
                quality=_quality_of(spec, shape),
                context_tokens=context_tokens,
            )
            found[shape] = _as_listed(_with_profile(spec, one, allow_estimates=allow_estimates))
    return tuple(found.values())


def _as_listed(one: Candidate) -> Candidate:
    """A pool that the spec lists is planned whenever it has a profile; doubts are told."""
    if one.is_kept or one.profile is None:
        return one
    return replace(one, reason=f"{one.reason}; listed under pools, so planned all the same")


def without_those_that_never_help(
    found: Sequence[Candidate], problem: Problem
) -> tuple[Candidate, ...]:
    """Candidates in the light of a workload: those that its problem did without are not kept.

    Parameters
    ----------
    problem : Problem
        As it was built for the workload from the spec that the candidates are of.
    """
    needed = {option.shape for option in problem.options}
    excluded = {e.shape: e for e in problem.excluded}
    return tuple(
        one
        if not one.is_kept or one.shape in needed or one.shape not in excluded
        else _excluded(one, excluded[one.shape])
        for one in found
    )


def _excluded(one: Candidate, exclusion: Exclusion) -> Candidate:
    verdict = Verdict.DOMINATED if exclusion.dominated_by else Verdict.RULED_OUT
    return replace(one.dropped(verdict, exclusion.reason), dominated_by=exclusion.dominated_by)


def why_none(spec: Spec, search: ShapeSearch, found: Sequence[Candidate]) -> str:
    """Why a search offers nothing, and what to do."""
    runs = candidates(search, spec.model(search.model), spec.accelerators, lambda _shape: None)
    if not any(c.is_kept for c in runs):
        return nothing_fits(search, spec.model(search.model), spec.accelerators, runs)
    reasons = "; ".join(dict.fromkeys(c.reason for c in found if c.verdict is Verdict.NO_PROFILE))
    return (
        f"none of the {sum(c.is_kept for c in runs)} shapes of {search.model} that fit can be "
        f"planned: {reasons}"
    )


def estimated(spec: Spec, shape: ReplicaShape) -> Profile:
    """An estimate for a shape, with the memory that the spec gives its accelerator.

    Raises
    ------
    ProfileError
        When it does not fit, or nothing is known of the accelerator.
    """
    accelerator = spec.accelerator(shape.accelerator)
    return estimate_profile(
        spec.model(shape.model), shape, accelerator.facts, memory_bytes=accelerator.memory_bytes
    )


def _with_profile(spec: Spec, found: Candidate, *, allow_estimates: bool) -> Candidate:
    """The candidate with an estimate where it has no profile and that is allowed."""
    if not found.is_kept or found.profile is not None:
        return found
    if not allow_estimates:
        ways = "no profile: measure it (`poolwise profile run`), or --allow-estimates"
        return found.dropped(Verdict.NO_PROFILE, ways)
    try:
        profile = estimated(spec, found.shape)
    except ProfileError as error:
        return found.dropped(Verdict.NO_PROFILE, str(error))
    return replace(found, profile=profile)


def _quality_of(spec: Spec, shape: ReplicaShape) -> Quality:
    return max(_judgements(spec, shape), key=lambda q: q.steps_down, default=Quality.REFERENCE)


def _judgements(spec: Spec, shape: ReplicaShape) -> Iterator[Quality]:
    return (s.quality_of(shape) for s in spec.shapes if s.model == shape.model)
