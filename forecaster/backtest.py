"""How good the forecaster would have been on a history: rolling origin, past data only."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from forecaster.answers import counted_answers
from forecaster.forecast import rate_totals
from forecaster.panel import LEVELS, Panel, Span
from forecaster.panel.conformal import USUAL, Adaptation, Conformal
from forecaster.panel.panel import ERROR_OFFSET, METHODS
from forecaster.panel.regression import logs
from forecaster.series import rate_table, usable_history
from planner.domain.errors import HistoryError
from planner.domain.wording import agreed, counted
from planner.domain.workload import Flags, Floats, ObservedWindow

PINBALL_LEVELS = (0.5, 0.8, 0.9, 0.95)
FEWEST_SCORED = 2
BOOTSTRAPS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Track:
    """What was forecast of one series at one horizon, origin by origin.

    Parameters
    ----------
    horizon : int
        Steps from the origin to what was forecast.
    values : (origins,) float
        The series itself; an origin is the end of a step. NaN: not observed.
    quantiles : (levels, origins) float
        At `LEVELS`; the median is the point forecast.
    centre : (origins,) float
        What the methods said, around which the quantiles were put.
    """

    horizon: int
    values: Floats
    quantiles: Floats
    centre: Floats

    @property
    def actual(self) -> Floats:
        """(origins,) what came `horizon` steps later; NaN: not observed, or not yet."""
        later = np.full(len(self.values), np.nan)
        later[: max(len(later) - self.horizon, 0)] = self.values[self.horizon :]
        return later

    @property
    def last(self) -> Floats:
        """(origins,) the last value known at the origin; NaN before the first."""
        return last_seen(self.values)

    @property
    def point(self) -> Floats:
        """(origins,) the medians."""
        return self.at(0.5)

    def at(self, level: float) -> Floats:
        """(origins,) the quantiles at one of `LEVELS`."""
        row: Floats = self.quantiles[LEVELS.index(level)]
        return row


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Accuracy of one series at one horizon.

    Parameters
    ----------
    origins : int
        Forecasts scored.
    mae_ratio : float or None
        Mean absolute error of the median over that of the last value; below 1 is better than
        the last value. None when the last value was always right.
    mase : float or None
        Mean absolute error of the median over the mean absolute one-step change of the part that
        was not scored (Hyndman and Koehler, IJF 22, 2006). None when that never changed.
    pinball_ratio : tuple of (float, float or None)
        Level, and the pinball loss there over that of the conformal last value.
    q90_coverage_ratio : float
        Share of the actual values at or below the forecast's 0.9 quantile.
    q90_coverage_low_ratio, q90_coverage_high_ratio : float
        Its 95 % interval by a circular block bootstrap (Politis and Romano, 1992), blocks twice the
        horizon or the cube root of the origins long.
    """

    origins: int
    mae_ratio: float | None
    mase: float | None
    pinball_ratio: tuple[tuple[float, float | None], ...]
    q90_coverage_ratio: float
    q90_coverage_low_ratio: float
    q90_coverage_high_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeriesScore:
    """Accuracy of one series of one class at one horizon, and the forecasts themselves.

    Parameters
    ----------
    series : str
        The name of the `Demand` field that was scored.
    scored : (origins,) bool
        Which origins of the track count.
    """

    request_class: str
    series: str
    horizon_windows: int
    score: Score
    track: Track
    scored: Flags


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BacktestResult:
    """Scores of all series at all horizons."""

    window_s: float
    scores: tuple[SeriesScore, ...]


_FIELDS = ("request_rate_rps", "input_tokens_per_s", "output_tokens_per_s")


def backtest_forecast(
    history: Sequence[ObservedWindow],
    *,
    horizons: Sequence[int] = (1, 5),
    first_origin: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BacktestResult:
    """Forecast every later window of a history from the windows before it, and compare.

    Parameters
    ----------
    history : sequence of ObservedWindow
        Windows of one length, any order; missing ones are not scored.
    horizons : sequence of int
        The windows scored: the first, fifth ... after the origin.
    first_origin : int or None
        Windows of each class that only serve as history; by default those whose forecasts fall
        into the first half.
    progress : function of (steps done, all steps) or None

    Raises
    ------
    HistoryError
        When window lengths differ, or nothing is left to score.
    ValueError
        When a horizon is below 1.
    """
    if not horizons or min(horizons) < 1:
        raise ValueError(f"horizons must be at least 1, got {list(horizons)}")
    lengths = {window.window_s for window in history}
    if len(lengths) > 1:
        raise HistoryError(
            f"a backtest needs windows of one length, got {sorted(lengths)} s; cut the trace again"
        )
    scores: list[SeriesScore] = []
    if history:
        by_class = usable_history(history, max(w.end_at for w in history))
        tables = {
            name: rate_table(windows, rate_totals(counted_answers(windows)))
            for name, windows in sorted(by_class.items())
        }
        count = _Count(sum(len(table.values) for table in tables.values()), progress)
        for name, table in tables.items():
            tracks = run_panel(
                table.values,
                horizons,
                step_s=table.step_s,
                first_end_s=table.end_at.timestamp() - (len(table.values) - 1) * table.step_s,
                each_step=count.one_more,
            )
            scores += _class_scores(name, tracks, first_origin)
    if not scores:
        raise HistoryError(
            f"{counted(len(history), 'window')} {agreed(len(history), 'leaves', 'leave')} no "
            "origin to score; give a longer history or shorter "
            "windows"
        )
    return BacktestResult(window_s=lengths.pop(), scores=tuple(scores))


def _class_scores(
    name: str, tracks: Sequence[Sequence[Track]], first_origin: int | None
) -> list[SeriesScore]:
    scores = []
    for field, of_series in zip(_FIELDS, tracks, strict=True):
        for track in of_series:
            scored = scored_origins(track, first_origin)
            if np.count_nonzero(scored) < FEWEST_SCORED:
                continue
            scores.append(
                SeriesScore(
                    request_class=name,
                    series=field,
                    horizon_windows=track.horizon,
                    score=score_of(track, scored),
                    track=track,
                    scored=scored,
                )
            )
    return scores


def scored_origins(track: Track, first_origin: int | None = None) -> Flags:
    """(origins,) those whose outcome was observed and lies in the second half.

    Parameters
    ----------
    first_origin : int or None
        So many windows only serve as history, instead of the first half.
    """
    steps = len(track.actual)
    target = np.arange(steps) + track.horizon
    first = steps // 2 if first_origin is None else first_origin - 1 + track.horizon
    return np.asarray((target >= first) & np.isfinite(track.actual) & np.isfinite(track.last))


class _Count:
    """Tells how many steps of all were taken."""

    def __init__(self, steps: int, progress: Callable[[int, int], None] | None) -> None:
        self._done = 0
        self._steps = steps
        self._progress = progress

    def one_more(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._steps)


def run_panel(
    values: Floats,
    horizons: Sequence[int],
    *,
    step_s: float,
    first_end_s: float = 0.0,
    methods: Collection[str] = METHODS,
    each_step: Callable[[], None] | None = None,
) -> list[list[Track]]:
    """What the panel forecasts along some series, per series and horizon.

    Parameters
    ----------
    values : (steps, series) float
        NaN: not observed.
    methods : collection of str
        Which may be followed (`forecaster.panel.panel.METHODS`).
    each_step : function or None
        Called after every step.
    """
    steps, series = values.shape
    spans = [Span(first=h, last=h) for h in sorted(set(horizons))]
    panel = Panel(
        series=series, step_s=step_s, spans=spans, first_end_s=first_end_s, methods=methods
    )
    quantiles = np.full((len(spans), series, len(LEVELS), steps), np.nan)
    centres = np.full((len(spans), series, steps), np.nan)
    for step in range(steps):
        panel.observe(values[step])
        outlook = panel.outlook(spans)
        quantiles[..., step] = outlook.quantiles.transpose(1, 2, 0)
        centres[..., step] = outlook.point
        if each_step is not None:
            each_step()
    return [
        [
            Track(
                horizon=span.last,
                values=values[:, column],
                quantiles=quantiles[index, column],
                centre=centres[index, column],
            )
            for index, span in enumerate(spans)
        ]
        for column in range(series)
    ]


def run_points(
    values: Floats, points: Floats, horizon: int, *, adaptation: Adaptation = USUAL
) -> Track:
    """A method's point forecasts with the quantiles that conformal prediction puts around them.

    Parameters
    ----------
    values, points : (steps,) float
        The series, and what was forecast after each step of the step `horizon` later.
    """
    offset = _offsets(values)
    least = np.log(offset) - logs(points, offset)
    errors = log_errors(values, points, horizon)
    moves = log_moves(errors[:, None], horizon, adaptation=adaptation, least=least[:, None])
    return moved_track(values, points, horizon, moves[:, :, 0])


def moved_track(values: Floats, points: Floats, horizon: int, moves: Floats) -> Track:
    """Point forecasts with quantiles that lie (levels, steps) `moves` apart in logarithms."""
    offset = _offsets(values)
    quantiles = np.maximum((points + offset) * np.exp(moves) - offset, 0.0)
    quantiles = np.where(points == 0, np.nan_to_num(quantiles), quantiles)
    return Track(horizon=horizon, values=values, quantiles=quantiles, centre=points)


def log_errors(values: Floats, points: Floats, horizon: int) -> Floats:
    """(steps,) ln of each value over what was forecast of it, offsets included; NaN: not known."""
    offset = _offsets(values)
    errors = np.full(len(values), np.nan)
    then = slice(0, max(len(values) - horizon, 0))
    errors[horizon:] = logs(values[horizon:], offset[then]) - logs(points[then], offset[then])
    return errors


def log_moves(
    errors: Floats, horizon: int, *, adaptation: Adaptation = USUAL, least: Floats | None = None
) -> Floats:
    """(levels, steps, series) what conformal prediction adds to the logarithms of forecasts.

    Parameters
    ----------
    errors : (steps, series) float
        Of the forecasts that were made `horizon` steps before, known from then on.
    least : (steps, series) float or None
        The moves to an outcome of 0: no quantile lies below it.
    """
    steps, series = errors.shape
    conformal = Conformal(furthest=np.array([horizon]), series=series, adaptation=adaptation)
    moves = np.full((len(LEVELS), steps, series), np.nan)
    zero = np.zeros((1, series))
    for step in range(steps):
        if step >= horizon:
            actual, then = errors[step][None], moves[:, step - horizon][:, None]
            conformal.learn(actual, then, actual=actual, point=zero, centred=zero)
        moves[:, step] = conformal.log_offsets()[0][:, 0]
        if least is not None:
            moves[:, step] = np.fmax(moves[:, step], least[step])
    return moves


def _offsets(values: Floats) -> Floats:
    """(steps,) added inside logarithms after each step; NaN before anything came."""
    count = np.cumsum(np.isfinite(values))
    mean = np.cumsum(np.nan_to_num(values)) / np.maximum(count, 1)
    return np.where(mean > 0, ERROR_OFFSET * mean, np.nan)


def last_seen(values: Floats) -> Floats:
    """(steps,) the last observed value at each step; NaN before the first."""
    seen = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(len(values))))
    return np.where(seen >= 0, values[seen], np.nan)


def score_of(track: Track, scored: Flags, *, reference: Track | None = None) -> Score:
    """The accuracy of a track over the scored origins.

    Parameters
    ----------
    reference : Track or None
        What pinball losses are compared with; by default the conformal last value.
    """
    actual = track.actual[scored]
    error = np.abs(track.point - track.actual)
    mae = float(error[scored].mean())
    last_mae = float(np.abs(track.last - track.actual)[scored].mean())
    if reference is None:
        reference = run_points(track.values, track.last, track.horizon)
    covered = actual <= track.at(0.9)[scored]
    low, high = block_bootstrap(covered, track.horizon)
    change = _one_step_change(track, scored)
    return Score(
        origins=int(np.count_nonzero(scored)),
        mae_ratio=mae / last_mae if last_mae > 0 else None,
        mase=mae / change if change > 0 else None,
        pinball_ratio=tuple(
            (level, _pinball_ratio(track, reference, scored, level)) for level in PINBALL_LEVELS
        ),
        q90_coverage_ratio=float(covered.mean()),
        q90_coverage_low_ratio=low,
        q90_coverage_high_ratio=high,
    )


def _one_step_change(track: Track, scored: Flags) -> float:
    first = int(np.flatnonzero(scored)[0])
    before = track.last[: max(first, 2)]
    changes = np.abs(np.diff(before[np.isfinite(before)]))
    return float(changes.mean()) if len(changes) else 0.0


def _pinball_ratio(track: Track, reference: Track, scored: Flags, level: float) -> float | None:
    loss = _pinball(track.actual[scored], track.at(level)[scored], level)
    other = _pinball(track.actual[scored], reference.at(level)[scored], level)
    return loss / other if other > 0 else None


def _pinball(actual: Floats, quantile: Floats, level: float) -> float:
    miss = actual - quantile
    return float(np.maximum(level * miss, (level - 1.0) * miss).mean())


def block_steps(origins: int, horizon: int) -> int:
    """Length of the blocks that are drawn whole, as neighbours are alike."""
    return max(2 * horizon, round(math.cbrt(origins)))


def block_bootstrap(covered: Flags, horizon: int) -> tuple[float, float]:
    """The 95 % interval of a share of origins, by circular blocks of `block_steps`."""
    count = len(covered)
    block = block_steps(count, horizon)
    whole, rest = divmod(count, block)
    starts = np.random.default_rng(0).integers(0, count, (BOOTSTRAPS, whole + 1))
    # Sums of blocks around the circle, so that a draw adds blocks instead of origins.
    sums = np.cumsum(np.concatenate([[0], covered, covered]))
    blocks = sums[starts[:, :whole] + block] - sums[starts[:, :whole]]
    ends = sums[starts[:, whole] + rest] - sums[starts[:, whole]]
    means = (blocks.sum(axis=1) + ends) / count
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
