"""One step of everything: methods, choice, quantiles."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from forecaster.panel import regression as regressions
from forecaster.panel import seasonal
from forecaster.panel import smoothing as smoothings
from forecaster.panel.choice import Choice
from forecaster.panel.conformal import Conformal
from forecaster.panel.record import Integers, Record, Span, Spans
from forecaster.panel.regression import Features, Regression, logs
from forecaster.panel.seasonal import Seasons
from forecaster.panel.smoothing import LAST_VALUE, Smoothing
from forecaster.panel.trees import NAME, Trees
from planner.domain.wanted import go_on
from planner.domain.workload import Floats

MOST_STEPS = 2100
"""Steps of history that a panel looks back on: a week of 5-minute windows, and seven hours."""

MOST_ANCHORS = 16
"""So many spans are learned; the others use what was learned at the nearest of them."""

REGRESSION_OFFSET, ERROR_OFFSET = 0.05, 0.25
"""Added inside logarithms, as a share of the mean so far. Regressions tell small rates apart;
errors are multiplicative above a quarter of the mean and additive below, or one burst out of
silence would count as a thousandfold error."""

METHODS = (*smoothings.NAMES, *seasonal.NAMES, *regressions.NAMES)
TREES = NAME


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outlook:
    """What is expected of each span of each series.

    Parameters
    ----------
    point : (spans, series) float
        In the series' unit.
    quantiles : (levels, spans, series) float
        At `conformal.LEVELS`, not decreasing with the level.
    methods : (series) tuple of str
        What is followed at the first span.
    errors : (origins, spans, series) float
        Log errors of past forecasts, one row per origin whose every span has ended, oldest first.
        NaN: not known, as of a series that was always 0.
    """

    point: Floats
    quantiles: Floats
    methods: tuple[tuple[str, ...], ...]
    errors: Floats

    def of(self, series: range) -> "Outlook":
        """The outlook of some of the series."""
        chosen = slice(series.start, series.stop)
        return Outlook(
            point=self.point[:, chosen],
            quantiles=self.quantiles[:, :, chosen],
            methods=self.methods[chosen],
            errors=self.errors[:, :, chosen],
        )


class Panel:
    """Forecasts of several series that share their steps, improving with each step.

    Parameters
    ----------
    series : int
    step_s : float
        Length of a step, seconds.
    spans : list of Span
        What will be asked for, in order of distance.
    first_end_s : float
        End of the first step, seconds since 1970 (its time of day matters).
    methods : collection of str
        Which of `METHODS` may be followed; the last value always may. `TREES` is not among them
        by default: it costs a second or more whenever it is fitted anew.
    """

    def __init__(
        self,
        *,
        series: int,
        step_s: float,
        spans: list[Span],
        first_end_s: float,
        methods: Collection[str] = METHODS,
    ) -> None:
        self._step_s = step_s
        self._first_end_s = first_end_s
        self._anchors = Spans.of(_anchors(spans))
        self._seasons = Seasons(step_s=step_s, most_steps=MOST_STEPS)
        furthest = max(span.last for span in spans)
        self._record = Record(series=series, kept_steps=self._seasons.kept_steps(furthest))
        self._smoothing = Smoothing(series)
        self._features = Features(step_s=step_s)
        count = len(self._anchors)
        self._lags = Regression(spans=count, series=series, columns=Features.lag_columns)
        self._calendar = Regression(spans=count, series=series, columns=Features.all_columns)
        self._trees = Trees(spans=count, series=series) if TREES in methods else None
        self._choice = Choice(methods=(*METHODS, TREES), spans=count, series=series)
        left_out = [name not in methods for name in (*METHODS, TREES)]
        left_out[LAST_VALUE] = False
        self._left_out = np.array(left_out)
        self._conformal = Conformal(furthest=self._anchors.last, series=series)
        self._pending = _Pending(self._anchors.last)

    @property
    def steps(self) -> int:
        """Steps seen so far."""
        return self._record.steps

    def observe(self, values: Floats) -> None:
        """Take the next step; `values` is (series,), NaN where nothing was observed.

        Raises
        ------
        NotWantedError
            When whoever asked gave it up; the panel is still as it was.
        """
        go_on()
        self._smoothing.add(values, self._record.steps)
        self._record.add(values, logs(values, self._offset(REGRESSION_OFFSET)))
        self._learn()
        made = self._forecast(self._anchors, np.arange(len(self._anchors)))
        self._pending.put(self._record.steps - 1, made)

    def outlook(self, spans: list[Span], *, noise_ratio: float = 1.0) -> Outlook:
        """What is expected of these spans.

        Parameters
        ----------
        noise_ratio : float
            Spread of what is asked for over that of a step: above 1 when it is shorter than one,
            since less noise averages away.
        """
        asked = Spans.of(spans)
        anchors = _nearest(self._anchors, asked)
        made = self._forecast(asked, anchors, noise_ratio)
        names = tuple(
            self._choice.names(made.points, anchors, index) for index in range(self._record.series)
        )
        return Outlook(
            point=made.point,
            quantiles=made.quantiles,
            methods=names,
            errors=self._errors_by_origin()[:, anchors],
        )

    def _errors_by_origin(self) -> Floats:
        """(origins, anchors, series) past errors of origins whose anchors have all ended."""
        errors = self._conformal.recent_errors()
        ends = self._anchors.last - self._anchors.last.min()
        origins = len(errors) - int(ends.max())
        if origins < 1:
            return np.zeros((0, *errors.shape[1:]))
        return np.stack([errors[end : end + origins, i] for i, end in enumerate(ends)], axis=1)

    def _offset(self, share: float) -> Floats:
        """(series,) NaN where nothing but zeros was seen: there is no scale yet to learn on."""
        mean = self._smoothing.mean
        return np.where(mean > 0, share * mean, np.nan)

    def _forecast(self, spans: Spans, anchors: Integers, noise_ratio: float = 1.0) -> "_Made":
        small, large = self._offset(REGRESSION_OFFSET), self._offset(ERROR_OFFSET)
        end_s = self._first_end_s + self._step_s * (self._record.steps - 1)
        past = seasonal.look_back(self._record, self._seasons, spans)
        lags, calendar = self._features.of(self._record, past, spans, small, end_s=end_s)
        current = logs(self._record.last, small)
        changes = np.concatenate(
            [
                self._lags.log_changes(lags, anchors),
                self._calendar.log_changes(calendar, anchors),
                self._tree_changes(calendar, anchors),
            ]
        )
        points = np.concatenate(
            [
                self._smoothing.points(self._record, spans),
                seasonal.points(self._record, past, spans),
                np.exp(current + changes) - small,
            ]
        )
        points = np.maximum(points, 0.0)
        points[self._left_out] = np.nan
        point = self._choice.follow(points, anchors)
        offsets, centre = self._conformal.log_offsets()
        moves = np.concatenate([noise_ratio * offsets[:, anchors], centre[None, anchors]])
        moved = np.maximum((point + large) * np.exp(moves) - large, 0.0)
        moved = np.where((point == 0) & np.isnan(moved), 0.0, moved)
        return _Made(
            lags=lags,
            calendar=calendar,
            points=points,
            point=point,
            quantiles=moved[:-1],
            centred=moved[-1],
            current=current,
            small=small,
            large=large,
        )

    def _tree_changes(self, features: Floats, anchors: Integers) -> Floats:
        if self._trees is None:
            return np.full((1, len(anchors), self._record.series), np.nan)
        return self._trees.log_changes(features, anchors)[None]

    def _learn(self) -> None:
        """Compare what was forecast of spans that end now with what came."""
        now = self._record.steps - 1
        then = self._pending.due(now)
        if then is None:
            return
        origin = now - self._anchors.last
        actual = self._record.observed_mean(
            origin + self._anchors.first, origin + self._anchors.last
        )
        change = logs(actual, then.small) - then.current
        self._lags.learn(then.lags, change)
        self._calendar.learn(then.calendar, change)
        if self._trees is not None:
            self._trees.learn(then.calendar, change)
        self._choice.learn(then.points, actual)
        error = logs(actual, then.large) - logs(then.point, then.large)
        self._conformal.learn(
            error, then.quantiles, actual=actual, point=then.point, centred=then.centred
        )


class _Made(NamedTuple):
    """A forecast of all anchors, with what is needed to learn from its outcome."""

    lags: Floats
    calendar: Floats
    points: Floats
    point: Floats
    quantiles: Floats
    centred: Floats
    current: Floats
    small: Floats
    large: Floats


class _Pending:
    """Forecasts whose outcome is not known yet, kept until the furthest span has ended."""

    def __init__(self, ends: Integers) -> None:
        self._ends = ends
        self._most = int(ends.max())
        self._anchors = np.arange(len(ends))
        # One row a step, as often as the furthest span is away; then the oldest is written over.
        self._rows: _Made | None = None

    def put(self, step: int, made: _Made) -> None:
        if self._rows is None:
            self._rows = _Made(*(np.full((self._most, *part.shape), np.nan) for part in made))
        for rows, part in zip(self._rows, made, strict=True):
            rows[step % self._most] = part

    def due(self, now: int) -> _Made | None:
        """For each anchor the forecast whose span ends at step `now`, NaN where there was none.

        None before the first of them has ended.
        """
        made, anchor = self._rows, self._anchors
        if made is None or now < self._ends.min():
            return None
        row = (now - self._ends) % self._most
        return _Made(
            lags=made.lags[row],
            calendar=made.calendar[row, anchor],
            points=made.points[row, :, anchor].swapaxes(0, 1),
            point=made.point[row, anchor],
            quantiles=made.quantiles[row, :, anchor].swapaxes(0, 1),
            centred=made.centred[row, anchor],
            current=made.current[row],
            small=made.small[row],
            large=made.large[row],
        )


def _anchors(spans: list[Span]) -> list[Span]:
    """At most `MOST_ANCHORS` of the spans, denser where they are near."""
    if len(spans) <= MOST_ANCHORS:
        return list(spans)
    wanted = np.unique(np.geomspace(1, len(spans), MOST_ANCHORS).round().astype(int)) - 1
    return [spans[index] for index in wanted]


def _nearest(anchors: Spans, spans: Spans) -> Integers:
    apart = np.abs(np.log(spans.last)[:, None] - np.log(anchors.last)[None, :])
    nearest: Integers = np.argmin(apart, axis=1)
    return nearest
