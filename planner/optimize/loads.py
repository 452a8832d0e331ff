"""What the windows ask of a deployment, and what each class in them is promised."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.capacity.end_to_end import WHOLE, Split
from planner.domain.errors import SpecError
from planner.domain.forecast import ForecastWindow
from planner.domain.slo import DEFAULT_CLASS, LONGEST_SLO_S, LONGEST_TOKEN_S, NO_SINGLE_GAPS, Slo
from planner.domain.spec import Spec
from planner.domain.workload import Shape
from planner.optimize.inputs import Stream


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Load:
    """What a window asks of the deployment, all classes together.

    Parameters
    ----------
    shape : Shape
        Mixture of the classes' shapes, weighted by their rates.
    class_names : (buckets,) str
        Whose requests each bucket of the shape holds.
    """

    request_rate_rps: float
    shape: Shape
    arrival_cv2: float
    class_names: NDArray[np.str_]

    def of_class(self, name: str) -> NDArray[np.bool_]:
        """(buckets,) which hold requests of a class."""
        return np.asarray(self.class_names == name, dtype=np.bool_)


def load_of(window: ForecastWindow, level: float) -> Load | None:
    """The window's load at a quantile of its forecast; None without traffic."""
    rates = np.array([d.request_rate_rps.at(level) for d in window.demands])
    if not window.demands or rates.sum() <= 0:
        return None
    share = rates / rates.sum()
    shapes = [d.shape for d in window.demands]

    def mixed(field: str) -> NDArray[np.float64]:
        return np.concatenate([np.asarray(getattr(s, field), dtype=np.float64) for s in shapes])

    weight = np.concatenate([s.weight * x for s, x in zip(shapes, share, strict=True)])
    return Load(
        request_rate_rps=float(rates.sum()),
        shape=Shape(
            input_tokens=mixed("input_tokens"),
            output_tokens=mixed("output_tokens"),
            cached_tokens=mixed("cached_tokens"),
            weight=weight,
        ),
        arrival_cv2=float(share @ np.array([d.arrival_cv2 for d in window.demands])),
        class_names=np.concatenate(
            [np.full(len(d.shape.weight), d.request_class) for d in window.demands]
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLoad:
    """A stream with its load per window (None: no traffic) and what its classes are promised.

    Parameters
    ----------
    split : Split
        How prefill and decode share an end-to-end objective (`planner.capacity.end_to_end`).
    """

    stream: Stream
    loads: tuple[Load | None, ...]
    slos: tuple[Slo, ...]
    split: Split = WHOLE

    @property
    def slo(self) -> Slo:
        """The strictest of its promises."""
        return strictest(self.slos)

    @property
    def busiest(self) -> Load:
        """The load of the window with most traffic; there is one."""
        present = (load for load in self.loads if load is not None)
        return max(present, key=lambda load: load.request_rate_rps)

    @property
    def kinds(self) -> list[Load]:
        """One load of every shape and arrivals that it has."""
        return different([load for load in self.loads if load is not None])


def promises(spec: Spec, model: str, classes: Iterable[str]) -> tuple[Slo, ...]:
    """What each class is promised, in order of name; without a class what `default` is.

    A class without its own promise has that of `default`, under its own name.

    Raises
    ------
    SpecError
        When a class has neither, or is promised what is not judged (`itl_p99_s`).
    """
    slos = []
    for name in sorted({*classes}) or [DEFAULT_CLASS]:
        slo = spec.slo_of(model, name) or spec.slo_of(model, DEFAULT_CLASS)
        if slo is None:
            raise SpecError(
                f"the forecast has requests of class {name!r} for model {model}, but `slos` has "
                f"no entry for it and none for {DEFAULT_CLASS!r}: add one"
            )
        if slo.itl_p99_s is not None:
            raise SpecError(NO_SINGLE_GAPS)
        slos.append(replace(slo, request_class=name))
    return tuple(slos)


def strictest_slo(spec: Spec, model: str, classes: Iterable[str]) -> Slo:
    """The objectives that keep every class's promise: of each objective the strictest.

    Raises
    ------
    SpecError
        As `promises`.
    """
    return strictest(promises(spec, model, classes))


def strictest(slos: Sequence[Slo]) -> Slo:
    """Of each objective the strictest."""
    return Slo(
        model=slos[0].model,
        ttft_s=min(s.ttft_s for s in slos),
        tpot_s=min(s.tpot_s for s in slos),
        attainment_ratio=max(s.attainment_ratio for s in slos),
        e2e_s=min((s.e2e_s for s in slos if s.e2e_s is not None), default=None),
    )


def alike(a: Load, b: Load) -> bool:
    """Whether two loads have the same shape and arrivals, whatever their rates."""
    fields = ("input_tokens", "output_tokens", "cached_tokens", "weight")
    return (
        a.arrival_cv2 == b.arrival_cv2
        and np.array_equal(a.class_names, b.class_names)
        and all(np.array_equal(getattr(a.shape, f), getattr(b.shape, f)) for f in fields)
    )


def different(loads: Sequence[Load]) -> list[Load]:
    """One load of every kind."""
    kept: list[Load] = []
    for load in loads:
        if not any(alike(load, known) for known in kept):
            kept.append(load)
    return kept


def with_slo(
    spec: Spec,
    model: str,
    *,
    ttft_ratio: float = 1.0,
    tpot_ratio: float = 1.0,
    e2e_ratio: float | None = None,
    attainment_ratio: float = 1.0,
    classes: Collection[str] = (),
) -> Spec:
    """The spec with one model's objectives stretched and its attainment capped.

    For asking what a relaxed promise would need. No objective is stretched beyond what an
    `Slo` accepts.

    Parameters
    ----------
    e2e_ratio : float or None
        None: as far as both TTFT and time per token are stretched.
    classes : collection of str
        Only theirs; one that has the promise of `default` gets one of its own. Empty: all.
    """
    if e2e_ratio is None:
        e2e_ratio = max(min(ttft_ratio, tpot_ratio), 1.0)
    default = spec.slo_of(model, DEFAULT_CLASS)
    own = [name for name in classes if spec.slo_of(model, name) is None]
    added = tuple(replace(default, request_class=name) for name in own if default is not None)
    slos = tuple(
        replace(
            s,
            ttft_s=min(s.ttft_s * ttft_ratio, LONGEST_SLO_S),
            tpot_s=min(s.tpot_s * tpot_ratio, LONGEST_TOKEN_S),
            e2e_s=None if s.e2e_s is None else s.e2e_s * e2e_ratio,
            attainment_ratio=min(s.attainment_ratio, attainment_ratio),
        )
        if s.model == model and (not classes or s.request_class in classes)
        else s
        for s in (*spec.slos, *added)
    )
    return replace(spec, slos=slos)
