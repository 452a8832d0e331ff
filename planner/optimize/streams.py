"""Requests that the target's router can tell apart, and what each of them asks of a pool.

Where it can tell nothing apart there is one stream, all requests of the model. Where it can, every
request class, or every bucket of uncached prompt lengths, or both, may go to pools of their own;
output lengths are not known on arrival and stay a distribution within each stream.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.domain.errors import OutsideProfileError
from planner.domain.fleet import Role
from planner.domain.forecast import Demand, Forecast, ForecastWindow
from planner.domain.profile import Profile
from planner.domain.spec import Spec
from planner.domain.workload import Shape
from planner.optimize.capacity_tables import TABLE_COUNTS, pool_rps
from planner.optimize.inputs import Floats, Stream
from planner.optimize.loads import Load, StreamLoad, load_of, promises

WORK_REPLICAS = 4
"""Pool size at which requests of different streams are weighed against each other."""


def streams_of(
    spec: Spec, forecast: Forecast, *, apart: Collection[str] = (), left_out: Collection[str] = ()
) -> tuple[StreamLoad, ...]:
    """The streams of a model that have traffic in any window; at least one.

    Parameters
    ----------
    apart : collection of str
        Classes that are streams of their own whatever the router can tell (`unkept_classes`).
    left_out : collection of str
        Likewise, and nothing serves them.

    Raises
    ------
    SpecError
        When a request class has no objectives.
    """
    model, routing = forecast.model, spec.routing
    priority = spec.priority_of(model)
    names = sorted({d.request_class for w in forecast.windows for d in w.demands})
    found = []
    own = {*apart, *left_out}
    shared = [] if routing.by_class else [name for name in names if name not in own]
    groups = ([shared] if shared else []) + [[name] for name in names if name not in shared]
    for classes in groups or [names]:
        slos = promises(spec, model, classes)
        for above, most in routing.buckets:
            stream = Stream(
                model=model,
                request_class="" if classes == shared or not classes else classes[0],
                bucket=_bucket_name(above, most),
                priority=priority,
                above_tokens=above,
                most_tokens=most,
                left_out=classes[:1] != [] and classes[0] in left_out,
            )
            windows = [_only(w, classes, stream) for w in forecast.windows]
            loads = tuple(load_of(w, spec.forecast.demand_level) for w in windows)
            found.append(StreamLoad(stream=stream, loads=loads, slos=slos))
    with_traffic = [s for s in found if any(load is not None for load in s.loads)]
    return tuple(with_traffic or found[:1])


def _bucket_name(above: int, most: int | None) -> str:
    if most is None:
        return f"{above}+" if above else ""
    return f"{above}-{most}"


def _only(window: ForecastWindow, classes: Sequence[str], stream: Stream) -> ForecastWindow:
    """The window's requests of a stream."""
    demands = (_part(d, stream) for d in window.demands if d.request_class in classes)
    return replace(window, demands=tuple(d for d in demands if d is not None))


def _part(demand: Demand, stream: Stream) -> Demand | None:
    """A class's requests within the stream's bucket."""
    inside = stream.holds(demand.shape.uncached_tokens)
    return demand.part(inside.astype(np.float64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """What a pool can do for the streams.

    Parameters
    ----------
    reached : tuple of int
        Streams whose lengths its profile was measured for.
    able : tuple of int
        Those of which a large pool sustains anything. Where there is one stream: all reached.
    beyond : OutsideProfileError or None
        Why it does not reach another.
    """

    reached: tuple[int, ...]
    able: tuple[int, ...]
    beyond: OutsideProfileError | None


def ability_of(profile: Profile, role: Role, streams: Sequence[StreamLoad]) -> Ability:
    """Which streams a profile reaches, and which of them a pool sustains.

    Streams of which even a large pool sustains nothing would spoil what it sustains of the others.
    """
    reached, able, beyond = [], [], None
    for k, of in enumerate(streams):
        if of.stream.left_out:
            reached.append(k)
            continue
        try:
            rates = [
                pool_rps(
                    profile,
                    role,
                    load,
                    of.slos,
                    replicas=TABLE_COUNTS,
                    split=of.split,
                )
                for load in of.kinds
            ]
        except OutsideProfileError as outside:
            beyond = outside
        else:
            reached.append(k)
            if len(streams) == 1 or min(rates, default=0.0) > 0:
                able.append(k)
    return Ability(reached=tuple(reached), able=tuple(able), beyond=beyond)


def together(streams: Sequence[StreamLoad]) -> StreamLoad:
    """Several streams as one load, every class under its own promise."""
    if len(streams) == 1:
        return streams[0]
    slos = tuple({slo.request_class: slo for of in streams for slo in of.slos}.values())
    classes_of = [s.stream.request_class for s in streams]
    each = zip(*(s.loads for s in streams), strict=True)
    loads = tuple(_merged(classes_of, window) for window in each)
    return replace(streams[0], loads=loads, slos=slos)


def _merged(classes: Sequence[str], loads: Sequence[Load | None]) -> Load | None:
    """Parts of one class vary together as the whole does, classes apart from each other."""
    there = [(name, load) for name, load in zip(classes, loads, strict=True) if load is not None]
    present = [load for _, load in there]
    rate_rps = sum(load.request_rate_rps for load in present)
    if rate_rps <= 0:
        return None
    shares = [load.request_rate_rps / rate_rps for load in present]
    cv2 = 0.0
    for name in dict.fromkeys(name for name, _ in there):
        parts = [load for own, load in there if own == name]
        share = sum(load.request_rate_rps for load in parts) / rate_rps
        cv2 += share * (1 + sum(load.arrival_cv2 - 1 for load in parts))
    shapes = [load.shape for load in present]
    return Load(
        request_rate_rps=rate_rps,
        shape=Shape(
            input_tokens=np.concatenate([s.input_tokens for s in shapes]),
            output_tokens=np.concatenate([s.output_tokens for s in shapes]),
            cached_tokens=np.concatenate([s.cached_tokens for s in shapes]),
            weight=np.concatenate([s.weight * x for s, x in zip(shapes, shares, strict=True)]),
        ),
        arrival_cv2=max(cv2, 0.0),
        class_names=np.concatenate([load.class_names for load in present]),
    )


def work_of(
    profile: Profile,
    role: Role,
    streams: Sequence[StreamLoad],
    able: Sequence[int],
    mix: StreamLoad,
) -> Floats:
    """(streams,) how many requests of the mix one request of each stream is worth in a pool.

    From what a pool of `WORK_REPLICAS` sustains of each alone, in the window with most traffic;
    infinite for those that it cannot serve.

    References
    ----------
    A load matrix over slices of a length histogram: Griggs et al., Melange (2024), section 5.
    """
    worth = np.full(len(streams), np.inf)
    if len(streams) == 1 and able:
        return np.ones(1)
    whole = _sustained(profile, role, mix)
    for k in able:
        alone = _sustained(profile, role, streams[k])
        if alone > 0 and whole > 0:
            worth[k] = whole / alone
    return worth


def _sustained(profile: Profile, role: Role, of: StreamLoad) -> float:
    return pool_rps(profile, role, of.busiest, of.slos, replicas=WORK_REPLICAS, split=of.split)
