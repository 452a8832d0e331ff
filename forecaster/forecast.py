"""Expected demand of the next windows, from observed ones."""

import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from scipy.special import gammaincinv

from forecaster.answers import expected_answers
from forecaster.cache_sizes import at_cache_size
from forecaster.drift import drift_of
from forecaster.memory import Memory, forgetful
from forecaster.panel import LEVELS, METHODS, TREES, Outlook
from forecaster.recent_lengths import RecentLengths, expected_lengths, recent_lengths
from forecaster.series import (
    RateTable,
    Total,
    rate_table,
    side_by_side,
    span_of,
    usable_history,
)
from forecaster.shapes import shape_from_totals, with_reuse
from planner.domain.forecast import (
    Demand,
    Dependence,
    Forecast,
    ForecastWindow,
    KnownEvent,
    Quantiles,
)
from planner.domain.workload import Floats, ObservedWindow, Shape

FEWEST_ORIGINS = 8
"""With fewer past errors nothing is said of how they go together."""

FEW_REQUESTS = 10
"""With no more in the whole history, what may come is told by their number, too."""

NEARLY_ALL = 0.9
"""Share of what was seen from which on an event may be taken for part of it."""

SMALLEST_TOLD_RATIO = 0.05
"""A window of which an event left less than this tells nothing of usual traffic."""


def forecast(
    history: Sequence[ObservedWindow],
    *,
    model: str,
    made_at: datetime,
    window_s: float,
    horizon_windows: int,
    arrival_cv2: float = 1.0,
    events: Sequence[KnownEvent] = (),
    boosted_trees: bool = False,
    cache_tokens: int | None = None,
    memory: Memory | None = None,
) -> Forecast:
    """What will arrive in the windows that follow `made_at`.

    Each series (request rate, input and output tokens per second, share of cached tokens, of each
    class) follows the methods that have beaten the last value at the distance of each window;
    quantiles come from the errors that this made, in log space. Lengths are the recent windows'
    lengths, weighted by requests and age.

    Parameters
    ----------
    history : sequence of ObservedWindow
        Any order and window length, gaps allowed (masked, never zero). Windows that end after
        `made_at` are ignored: nothing after `made_at` is used.
    window_s : float
        Length of the forecast windows, seconds; the first starts at `made_at`.
    arrival_cv2 : float
        Squared coefficient of variation of the gaps between arrivals, where it was measured.
    events : sequence of KnownEvent
        Past ones are taken out of the history, coming ones put on top of the forecast.
    boosted_trees : bool
        Whether these are among the methods; a fit takes 0.1 to 0.2 s.
    cache_tokens : int or None
        Prefix caches that prompts will meet, all together; None: those of the newest window that
        tells its own. What was found in caches of other sizes is brought to it (`cache_sizes`).
    memory : Memory or None
        Keeps what was learned for the next forecast of the same model; the answer is the same.

    Raises
    ------
    HistoryError
        When no window ended by `made_at`, or windows of one class overlap; when a cache size is
        asked for that no window helps to tell.
    ValueError
        When `made_at` has no time zone, or a number is out of range.
    """
    _check(made_at, window_s, horizon_windows, arrival_cv2)
    usable = usable_history(history, made_at)
    by_class = dict(sorted(at_cache_size(usable, cache_tokens).items()))
    starts = [made_at + timedelta(seconds=k * window_s) for k in range(horizon_windows)]
    lengths = _lengths(by_class, made_at, model=model, memory=memory)
    others = _shape_of_others(by_class, made_at) if None in lengths.values() else None
    usual = {name: _usual(name, past, events) for name, past in by_class.items()}
    tables = {name: found.table for name, found in usual.items()}
    methods = (*METHODS, TREES) if boosted_trees else METHODS
    outlooks = _outlooks(tables, starts, window_s, methods, model=model, memory=memory)
    classes = [
        _ClassOutlook(name, lengths[name], found, outlooks[name], others=others)
        for name, found in usual.items()
    ]
    demands = [outlook.demands(starts, window_s, arrival_cv2) for outlook in classes]
    windows = tuple(
        ForecastWindow(start_at=start_at, window_s=window_s, demands=of_window)
        for start_at, of_window in zip(starts, zip(*demands, strict=True), strict=True)
    )
    method = "; ".join(outlook.method for outlook in classes)
    drifts = [drift_of(name, found) for name, found in lengths.items() if found]
    return Forecast(
        forecast_id=_content_id(model, made_at, windows, method),
        model=model,
        made_at=made_at,
        windows=windows,
        method=method,
        events=_events_ahead(events, usual.values(), starts, window_s),
        drifts=tuple(drift for drift in drifts if drift is not None),
        dependence=tuple(outlook.dependence for outlook in classes),
    )


def _check(made_at: datetime, window_s: float, horizon_windows: int, arrival_cv2: float) -> None:
    if made_at.tzinfo is None:
        raise ValueError("made_at needs a time zone")
    if not 0 < window_s < math.inf:
        raise ValueError(f"window_s must be above 0 s and finite, got {window_s:g}")
    if horizon_windows < 1:
        raise ValueError(f"horizon_windows must be at least 1, got {horizon_windows}")
    if not 0 <= arrival_cv2 < math.inf:
        raise ValueError(f"arrival_cv2 must be at least 0 and finite, got {arrival_cv2:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One forecast quantity of a class.

    `per_request` is what one more request would add; it bounds what may come after a history of
    zeros.
    """

    label: str
    per_request: Callable[[Shape], float]


RATES = (
    Quantity(label="requests", per_request=lambda _: 1.0),
    Quantity(label="input tokens", per_request=lambda s: s.isl_mean),
    Quantity(label="output tokens", per_request=lambda s: s.osl_mean),
)


def rate_totals(answers: Total) -> tuple[Total, ...]:
    """The totals of `RATES`, with output tokens as `answers` tells them."""
    return lambda w: w.requests, lambda w: w.input_tokens, answers


def _reuse_total(window: ObservedWindow) -> float:
    """The share of cached tokens, held over the window's seconds; NaN where no prompt arrived."""
    if window.input_tokens == 0:
        return math.nan
    return window.cached_tokens / window.input_tokens * window.window_s


def _lengths(
    by_class: dict[str, list[ObservedWindow]],
    made_at: datetime,
    *,
    model: str,
    memory: Memory | None,
) -> dict[str, RecentLengths | None]:
    """The recent lengths of each class; None where it had no request."""
    if memory is None:
        return {name: recent_lengths(past, at=made_at) for name, past in by_class.items()}
    return {
        name: memory.lengths((model, name), past, at=made_at) for name, past in by_class.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Usual:
    """A class's rates and its share of cached tokens, step by step, without events.

    `on_top` are the events that they do not hold, to be put on top of what is forecast.
    """

    table: RateTable
    on_top: tuple[KnownEvent, ...]


def _usual(
    request_class: str, windows: list[ObservedWindow], events: Sequence[KnownEvent]
) -> _Usual:
    totals = rate_totals(expected_answers(windows))
    for held in _held_events(request_class, windows, events):
        on_top = tuple(event for event in events if event not in held)
        without = [_without_events(total, on_top, request_class) for total in totals]
        table = rate_table(windows, [*without, _reuse_total])
        if np.isfinite(table.values[:, 0]).any():
            break
    return _Usual(table=table, on_top=on_top)


def _held_events(
    request_class: str, windows: Sequence[ObservedWindow], events: Sequence[KnownEvent]
) -> Iterator[tuple[KnownEvent, ...]]:
    """Events that may count as part of what was seen, to be tried until something is told.

    None; where events leave nothing, what came is the best there is, and holds those that cover
    (nearly) all of it; where they only do so together, all that were seen.
    """
    yield ()
    seen = [(event, _share_seen(event, request_class, windows)) for event in events]
    yield tuple(event for event, share in seen if share >= NEARLY_ALL)
    yield tuple(event for event, share in seen if share > 0)


def _share_seen(event: KnownEvent, request_class: str, windows: Sequence[ObservedWindow]) -> float:
    """Share of the observed seconds of a class in which the event changed its traffic, 0..1."""
    if event.rate_ratio == 1 or event.request_class not in (None, request_class):
        return 0.0
    covered_s = sum(
        max((min(event.end_at, w.end_at) - max(event.start_at, w.start_at)).total_seconds(), 0.0)
        for w in windows
    )
    return covered_s / sum(w.window_s for w in windows)


def _outlooks(
    tables: dict[str, RateTable],
    starts: Sequence[datetime],
    window_s: float,
    methods: tuple[str, ...],
    *,
    model: str,
    memory: Memory | None,
) -> dict[str, Outlook]:
    """What is expected of each class; classes whose steps are the same share a panel."""
    alike: dict[tuple[float, datetime], list[str]] = {}
    for name, table in tables.items():
        alike.setdefault((table.step_s, table.end_at), []).append(name)
    found: dict[str, Outlook] = {}
    for names in alike.values():
        together = side_by_side([tables[name] for name in names])
        spans = [span_of(together, start_at, window_s) for start_at in starts]
        # Errors were seen on steps; a shorter window averages less noise away.
        noise_ratio = max(1.0, math.sqrt(together.step_s / window_s))
        outlook = (
            forgetful(together, spans, methods, noise_ratio=noise_ratio)
            if memory is None
            else memory.outlook((model, *names), together, spans, methods, noise_ratio=noise_ratio)
        )
        outlook = replace(outlook, errors=_known_errors(outlook.errors))
        for index, name in enumerate(names):
            found[name] = outlook.of(range(index * _COLUMNS, (index + 1) * _COLUMNS))
    return found


_COLUMNS = len(RATES) + 1
"""Of a class in its table: the rates, and the share of cached tokens."""


def _known_errors(errors: Floats) -> Floats:
    """Origins whose errors are known for all rates of all classes, so that they stay in step.

    Rates of which no error is known at all (nothing arrived) do not count.
    """
    is_rate = np.arange(errors.shape[2]) % _COLUMNS < len(RATES)
    known = np.isfinite(errors)
    told = is_rate & known.any(axis=(0, 1))
    complete: Floats = errors[known[:, :, told].all(axis=(1, 2))]
    return complete


class _ClassOutlook:
    """Everything that is forecast of one request class."""

    def __init__(
        self,
        name: str,
        recent: RecentLengths | None,
        usual: _Usual,
        outlook: Outlook,
        *,
        others: Shape | None,
    ) -> None:
        self._name = name
        self._shape, self._answers = (
            (others or _LEAST, None) if recent is None else expected_lengths(recent)
        )
        table = self._table = usual.table
        self._outlook = outlook
        self._events = usual.on_top
        # Rounded: with events taken out it need not be whole.
        self._requests = round(float(np.nansum(table.values[:, 0])) * table.step_s)
        self.dependence = _dependence(name, outlook.errors[:, :, : len(RATES)])
        self.method = self._methods(outlook)

    def demands(
        self, starts: Sequence[datetime], window_s: float, arrival_cv2: float
    ) -> list[Demand]:
        """The class's demand in every window."""
        return [
            self._demand(self._outlook, index, start_at, window_s, arrival_cv2)
            for index, start_at in enumerate(starts)
        ]

    def _demand(
        self, outlook: Outlook, index: int, start_at: datetime, window_s: float, arrival_cv2: float
    ) -> Demand:
        ratio = _event_ratio(
            self._events, self._name, start_at, start_at + timedelta(seconds=window_s)
        )
        rates = [self._rate(outlook, index, column).times(ratio) for column in range(len(RATES))]
        reuse = outlook.quantiles[:, index, len(RATES)]
        known = bool(np.isfinite(reuse).all())
        shape = with_reuse(self._shape, float(reuse[LEVELS.index(0.5)])) if known else self._shape
        return Demand(
            request_class=self._name,
            request_rate_rps=rates[0],
            input_tokens_per_s=rates[1],
            output_tokens_per_s=rates[2],
            shape=shape,
            output_lengths=self._answers,
            reuse_ratio=_increasing(np.minimum(reuse, 1.0)) if known else None,
            arrival_cv2=arrival_cv2,
        )

    def _rate(self, outlook: Outlook, index: int, column: int) -> Quantiles:
        found = outlook.quantiles[:, index, column]
        if not self._is_known(column):
            requests = np.array(self._rate(outlook, index, 0).values)
            return _increasing(requests * RATES[column].per_request(self._shape))
        if self._requests <= FEW_REQUESTS:
            rare = _rare_rates(self._requests, float(self._table.observed_s[0]))
            rare = rare * RATES[column].per_request(self._shape)
            found = rare if self._is_idle(column) else np.maximum(found, rare)
        return _increasing(found)

    def _is_idle(self, column: int) -> bool:
        return float(np.nansum(self._table.values[:, column])) == 0

    def _is_known(self, column: int) -> bool:
        return bool(np.isfinite(self._table.values[:, column]).any())

    def _methods(self, outlook: Outlook) -> str:
        chosen = ", ".join(
            f"{quantity.label} by {self._method(outlook, column)}"
            for column, quantity in enumerate(RATES)
        )
        return f"{self._name}: {chosen}"

    def _method(self, outlook: Outlook, column: int) -> str:
        if not self._is_known(column):
            return "requests and their lengths, as they were not counted"
        if self._is_idle(column):
            return "no traffic so far"
        return _listed(outlook.methods[column])


def _listed(methods: Sequence[str]) -> str:
    return methods[0] if len(methods) == 1 else f"the mean of {' / '.join(methods)}"


def _event_ratio(
    events: Sequence[KnownEvent], request_class: str, start_at: datetime, end_at: datetime
) -> float:
    return math.prod(event.ratio_in(request_class, start_at, end_at) for event in events)


def _without_events(total: Total, events: Sequence[KnownEvent], request_class: str) -> Total:
    """The total as it would have been without events; NaN where they left next to nothing."""
    if not events:
        return total

    def usual(window: ObservedWindow) -> float:
        ratio = _event_ratio(events, request_class, window.start_at, window.end_at)
        return total(window) / ratio if ratio >= SMALLEST_TOLD_RATIO else math.nan

    return usual


def _events_ahead(
    events: Sequence[KnownEvent],
    usual: Collection[_Usual],
    starts: Sequence[datetime],
    window_s: float,
) -> tuple[str, ...]:
    end_at = starts[-1] + timedelta(seconds=window_s)
    return tuple(
        f"{event.name}: x{event.rate_ratio:g} from {event.start_at.isoformat()} to "
        f"{event.end_at.isoformat()}"
        + (f", class {event.request_class}" if event.request_class else "")
        + ("" if any(event in of.on_top for of in usual) else ", as in all that was seen")
        for event in events
        if event.start_at < end_at and event.end_at > starts[0]
    )


def _dependence(name: str, errors: Floats) -> Dependence:
    errors = errors[np.isfinite(errors).all(axis=(1, 2))]
    if len(errors) < FEWEST_ORIGINS:
        return Dependence(request_class=name, ranks=np.zeros((0, *errors.shape[1:])))
    order = np.argsort(np.argsort(errors, axis=0, kind="stable"), axis=0, kind="stable")
    return Dependence(request_class=name, ranks=(order + 0.5) / len(errors))


def _increasing(values: Floats) -> Quantiles:
    kept = np.maximum.accumulate(np.maximum(values, 0.0))
    return Quantiles(levels=LEVELS, values=tuple(kept.tolist()))


def _rare_rates(requests: int, observed_s: float) -> Floats:
    """(levels,) requests/s that may come when so few came in the time observed.

    The upper confidence bounds of a Poisson rate (Garwood, Biometrika 28, 1936):
    Gamma^-1(level; requests + 1) / T. Without any request -ln(1 - level) / T, which at 0.95 is the
    "rule of three", 3 / T (Hanley and Lippman-Hand, JAMA 1983).
    """
    return np.asarray(gammaincinv(requests + 1, np.array(LEVELS))) / observed_s


_LEAST = shape_from_totals(
    requests=1, input_tokens=1, output_tokens=1, cached_tokens=0, length_cv=0.0
)
"""One token in, one out, the least that a request can be: where no class had any request. Its rate
is close to zero anyway."""


def _shape_of_others(by_class: dict[str, list[ObservedWindow]], made_at: datetime) -> Shape | None:
    everyone = sorted((w for ws in by_class.values() for w in ws), key=lambda w: w.end_at)
    found = recent_lengths(everyone, at=made_at)
    return None if found is None else expected_lengths(found)[0]


def _content_id(
    model: str, made_at: datetime, windows: Sequence[ForecastWindow], method: str
) -> str:
    digest = hashlib.sha256(f"{model}\n{made_at.isoformat()}\n{method}\n".encode())
    for window in windows:
        digest.update(f"{window.start_at.isoformat()} {window.window_s!r}\n".encode())
        for demand in window.demands:
            digest.update(
                f"{demand.request_class} {demand.arrival_cv2!r} {demand.request_rate_rps!r} "
                f"{demand.input_tokens_per_s!r} {demand.output_tokens_per_s!r} "
                f"{demand.reuse_ratio!r}\n".encode()
            )
            shape = demand.shape
            for column in (
                shape.input_tokens,
                shape.output_tokens,
                shape.cached_tokens,
                shape.weight,
            ):
                digest.update(column.astype("<f8").tobytes())
    return f"forecast-{digest.hexdigest()[:16]}"
