"""Requests longer than every context: refused with what helps, or left unserved if they may be."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.domain.errors import TooLongError
from planner.domain.fleet import Role
from planner.domain.forecast import Demand, Forecast, ForecastWindow
from planner.domain.profile import Profile
from planner.domain.slo import Slo
from planner.domain.spec import Objective, Spec
from planner.domain.wording import percent
from planner.optimize.inputs import Reach, Stream, held_by
from planner.optimize.loads import StreamLoad, load_of, promises

_LEAST_PROMISE = 0.05
"""To promise less than so much is no way out."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Apart:
    """What of a forecast fits, and what nothing holds.

    Parameters
    ----------
    fits : Forecast
        Of classes of which more than may miss is too long only what some way through the pools
        holds; of others all.
    streams : tuple of StreamLoad
        The rest, one a class.
    """

    fits: Forecast
    streams: tuple[StreamLoad, ...]


def without_too_long(
    spec: Spec,
    forecast: Forecast,
    profiles: Sequence[tuple[Role, Profile]],
    *,
    every: bool = False,
) -> Apart:
    """The forecast without what nothing holds, where that may stay unserved.

    Where no more of a class is too long than may miss, that counts as missed, as ever.

    Parameters
    ----------
    profiles : sequence of (Role, Profile)
        Of every pool that is offered.
    every : bool
        Leave it unserved also where no more than may miss is too long.

    Raises
    ------
    TooLongError
        Where all has to be served, or nothing fits at all.
    """
    model = forecast.model
    context = next((m.max_context_tokens for m in spec.models if m.name == model), 0)
    reaches = tuple(_reaches(profiles, context))
    if not reaches:  # no way through the pools at all: told as that
        return Apart(fits=forecast, streams=())
    names = sorted({d.request_class for w in forecast.windows for d in w.demands})
    slos = promises(spec, model, names)
    worst = {slo.request_class: _worst(forecast, slo, reaches) for slo in slos}
    sheds = (
        spec.planning.objective is Objective.GOODPUT
        or spec.planning.shortfall_usd_per_request is not None
    )
    may_miss = {s.request_class: 0.0 if every and sheds else 1 - s.attainment_ratio for s in slos}
    long = [s for s in slos if worst[s.request_class][0] > may_miss[s.request_class]]
    if not long:
        return Apart(fits=forecast, streams=())
    cut = {slo.request_class for slo in long}
    fits = replace(forecast, windows=tuple(_kept(w, cut, reaches) for w in forecast.windows))
    some_fit = any(window.demands for window in fits.windows)
    if not sheds or not some_fit:
        raise _refusal(forecast, long[0], worst[long[0].request_class], reaches, profiles)
    streams = tuple(_stream(spec, forecast, slo, reaches) for slo in long)
    return Apart(fits=fits, streams=streams)


def _reaches(profiles: Sequence[tuple[Role, Profile]], context: int) -> Iterator[Reach]:
    """The longest requests of every way through the pools, within the model's context.

    As `planner.capacity.batch.servable`: a prefill replica holds the prompt and one token.
    """
    most: dict[Role, int] = {}
    for role, profile in profiles:
        holds = min(profile.limits.kv_capacity_tokens, profile.limits.max_model_len)
        most[role] = max(most.get(role, 0), min(holds, context or holds))
    if Role.AGGREGATED in most:
        yield Reach(prompt_tokens=most[Role.AGGREGATED], tokens=most[Role.AGGREGATED])
    if Role.PREFILL in most and Role.DECODE in most:
        yield Reach(prompt_tokens=most[Role.PREFILL] - 1, tokens=most[Role.DECODE])


def _worst(forecast: Forecast, slo: Slo, reaches: Sequence[Reach]) -> tuple[float, int]:
    """The largest share of a class in any window that is too long, and in which window."""
    found = [
        (float(d.shape.weight @ ~held_by(reaches, d.shape)), -t)
        for t, window in enumerate(forecast.windows)
        for d in window.demands
        if d.request_class == slo.request_class
    ]
    share, t = max(found, default=(0.0, 0))
    return share, -t


def _kept(window: ForecastWindow, cut: set[str], reaches: Sequence[Reach]) -> ForecastWindow:
    demands = (
        d.part(held_by(reaches, d.shape).astype(np.float64)) if d.request_class in cut else d
        for d in window.demands
    )
    return replace(window, demands=tuple(d for d in demands if d is not None))


def _stream(spec: Spec, forecast: Forecast, slo: Slo, reaches: tuple[Reach, ...]) -> StreamLoad:
    """What nothing holds of a class."""

    def beyond(window: ForecastWindow) -> ForecastWindow:
        parts: list[Demand] = []
        for demand in window.demands:
            part = demand.part((~held_by(reaches, demand.shape)).astype(np.float64))
            if demand.request_class == slo.request_class and part is not None:
                parts.append(part)
        return replace(window, demands=tuple(parts))

    level = spec.forecast.demand_level
    stream = Stream(
        model=forecast.model,
        request_class=slo.request_class,
        bucket=f"{_largest(reaches)}+",
        priority=spec.priority_of(forecast.model),
        beyond=reaches,
    )
    loads = tuple(load_of(beyond(window), level) for window in forecast.windows)
    return StreamLoad(stream=stream, loads=loads, slos=(slo,))


def _largest(reaches: Sequence[Reach]) -> int:
    return max((reach.tokens for reach in reaches), default=0)


def _refusal(
    forecast: Forecast,
    slo: Slo,
    worst: tuple[float, int],
    reaches: Sequence[Reach],
    profiles: Sequence[tuple[Role, Profile]],
) -> TooLongError:
    share, t = worst
    model, largest = forecast.model, _largest(reaches)
    longest = max(
        float((d.shape.input_tokens + d.shape.output_tokens).max())
        for window in forecast.windows
        for d in window.demands
        if d.request_class == slo.request_class
    )
    widest = max(min(p.limits.max_model_len, p.limits.kv_capacity_tokens) for _, p in profiles)
    by_model = largest < widest
    whose = "the model's context" if by_model else "every profile's max_model_len"
    longer = "a model (max_context_tokens)" if by_model else "replicas (max_model_len)"
    several = len({d.request_class for w in forecast.windows for d in w.demands}) > 1
    of = f" of class {slo.request_class}"
    ways = [f"{longer} with a context of {math.ceil(longest):,} tokens or more"]
    promise = _promise_that_helps(1 - share, by_model, [role for role, _ in profiles])
    if promise is not None:
        ways.append(
            f"attainment_ratio {promise:.2f} or less for class {slo.request_class}, of which "
            f"{percent(1 - share)} fit"
        )
    if several or share < 1:
        ways.append(
            "leave them unserved (planning.shortfall_usd_per_request, or objective goodput)"
        )
    ways.append("send them elsewhere")
    return TooLongError(
        f"meet_demand[{model}/{slo.request_class},{t}]: {percent(share)} of the requests{of} for "
        f"{model} are longer than {whose} of {largest:,} tokens, the largest there is, but "
        f"only {percent(1 - slo.attainment_ratio)} may miss. Ways out: {'; '.join(ways)}",
        request_class=slo.request_class,
        too_long_ratio=share,
        context_tokens=largest,
    )


def _promise_that_helps(fits: float, by_model: bool, roles: Sequence[Role]) -> float | None:
    """An attainment that can be kept while only so much fits, rounded down; None: none worth it.

    In a pair each role keeps the square root of it (`role_target`). A twentieth less, as the twin
    has to confirm it with what it samples: a promise of 0.69 where 70 % fit is not confirmed.
    """
    alone = by_model or Role.AGGREGATED in roles
    promise = math.floor(100 * 0.95 * (fits if alone else fits**2)) / 100
    return promise if promise >= _LEAST_PROMISE else None
