"""Where the 0.9 quantile covers too little or too much: remedies, and what causes it.

Remedies change only how quantiles are put around the very forecasts that the panel made. The
ablation takes the errors of these forecasts and changes nothing but their order: a miss that goes
away with the order comes from traffic that changed half-way, not from the procedure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.forecasting.accuracy import Case, geometric_mean
from forecaster.backtest import (
    Score,
    Track,
    block_bootstrap,
    block_steps,
    log_errors,
    log_moves,
    moved_track,
    run_points,
    score_of,
)
from forecaster.panel import LEVELS
from forecaster.panel.conformal import USUAL, Adaptation
from planner.domain.workload import Floats

ASKED_LEVEL = 0.9
ADAPTATIONS = {
    "none (split conformal)": Adaptation(step_size=0.0),
    "step 0.05 / k^0.5": Adaptation(step_size=0.05),
    "step 0.1 / k^0.5 (as it is)": USUAL,
    "step 0.2 / k^0.5": Adaptation(step_size=0.2),
    "step 0.05 for ever": Adaptation(step_size=0.05, step_decay=0.0),
    "last 100 errors, step 0.05": Adaptation(recent_errors=100, step_size=0.05),
    "last 100 errors, not 200": Adaptation(recent_errors=100),
    "last 50 errors, not 200": Adaptation(recent_errors=50),
}
SCALED = "errors over their recent size"
SCALE_STEPS = 24
"""The recent size of errors: their mean absolute value, weights falling by 1/e in so many steps."""

SHUFFLES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """How all series of one horizon fare with one way to put quantiles around forecasts.

    `of_series` is the coverage by service and series.
    """

    name: str
    horizon: int
    pinball_ratio: float
    coverage_ratio: float
    outside: int
    of_series: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reordered:
    """One series at one horizon, and the same with its errors in another order.

    Parameters
    ----------
    outside : bool
        0.90 lies outside the interval, errors in the order in which they came.
    second_above_ratio : float
        Share of the second half's errors above the 0.9 quantile of the first half's.
    covered : dict of str to (orders,) float
        Coverage of the half that is scored, by kind of order.
    outsiders : dict of str to (orders,) float
        Whether 0.90 lies outside the interval then, 0 or 1.
    """

    case: Case
    outside: bool
    second_above_ratio: float
    covered: dict[str, Floats]
    outsiders: dict[str, Floats]


def remedies(cases: Sequence[Case]) -> Iterator[Remedy]:
    """Each remedy at each horizon, over all series."""
    references = [run_points(c.track.values, c.track.last, c.track.horizon) for c in cases]
    for name in (*ADAPTATIONS, SCALED):
        scores = [
            score_of(_with(name, case.track), case.scored, reference=reference)
            for case, reference in zip(cases, references, strict=True)
        ]
        for horizon in sorted({case.track.horizon for case in cases}):
            pairs = zip(cases, scores, strict=True)
            yield _summary(
                name,
                horizon,
                {_called(c): score for c, score in pairs if c.track.horizon == horizon},
            )


def is_outside(score: Score) -> bool:
    """Whether 0.90 lies outside the interval of a series' coverage."""
    return not score.q90_coverage_low_ratio <= ASKED_LEVEL <= score.q90_coverage_high_ratio


def pooled(scores: Sequence[Score]) -> float:
    """Coverage over the origins of all series."""
    origins = sum(score.origins for score in scores)
    return sum(score.origins * score.q90_coverage_ratio for score in scores) / origins


def pinball(scores: Sequence[Score]) -> list[float]:
    """Pinball(0.9) relative to the conformal last value, series by series."""
    return [dict(score.pinball_ratio)[ASKED_LEVEL] or 1.0 for score in scores]


def _called(case: Case) -> str:
    return f"{case.service} {case.name}"


def _summary(name: str, horizon: int, of_series: dict[str, Score]) -> Remedy:
    scores = list(of_series.values())
    return Remedy(
        name=name,
        horizon=horizon,
        pinball_ratio=geometric_mean(pinball(scores)),
        coverage_ratio=pooled(scores),
        outside=sum(is_outside(score) for score in scores),
        of_series={called: score.q90_coverage_ratio for called, score in of_series.items()},
    )


def _with(name: str, track: Track) -> Track:
    """The same forecasts, their quantiles found another way."""
    if name != SCALED:
        return run_points(track.values, track.centre, track.horizon, adaptation=ADAPTATIONS[name])
    errors = log_errors(track.values, track.centre, track.horizon)
    size = _recent_size(errors)
    then = np.concatenate([np.full(track.horizon, np.nan), size[: -track.horizon]])
    moves = log_moves((errors / then)[:, None], track.horizon)[:, :, 0]
    return moved_track(track.values, track.centre, track.horizon, moves * size)


def _recent_size(errors: Floats) -> Floats:
    """(steps,) recent size of errors over their mean size so far; 1 before the first."""
    keep = np.exp(-1.0 / SCALE_STEPS)
    recent, weight, total, count = 0.0, 0.0, 0.0, 0
    sizes = np.ones(len(errors))
    for step, size in enumerate(np.abs(errors)):
        if np.isfinite(size):
            recent, weight = keep * recent + size, keep * weight + 1.0
            total, count = total + size, count + 1
        if total > 0:
            sizes[step] = max(recent / weight / (total / count), 0.1)
    return sizes


def reordered(cases: Sequence[Case]) -> Iterator[Reordered]:
    """Every series with its errors in order, the halves swapped, and shuffled."""
    rng = np.random.default_rng(0)
    for case in cases:
        horizon = case.track.horizon
        errors = log_errors(case.track.values, case.track.centre, horizon)[horizon:]
        errors = errors[np.argmax(np.isfinite(errors)) :]
        half = len(case.track.values) // 2 - (len(case.track.values) - len(errors))
        covered, outsiders = {}, {}
        for name, orders, first in _orders(case, len(errors), half, rng):
            flags = _covered(np.stack([errors[o] for o in orders], axis=1), horizon, first)
            covered[name] = np.array([f.mean() for f in flags])
            intervals = [block_bootstrap(f, horizon) for f in flags]
            outsiders[name] = np.array([not a <= ASKED_LEVEL <= b for a, b in intervals], float)
        usual = np.nanquantile(errors[:half], ASKED_LEVEL)
        later = errors[half:][np.isfinite(errors[half:])]
        yield Reordered(
            case=case,
            outside=is_outside(case.score),
            second_above_ratio=float((later > usual).mean()),
            covered=covered,
            outsiders=outsiders,
        )


def _orders(
    case: Case, count: int, half: int, rng: np.random.Generator
) -> Iterator[tuple[str, list[np.ndarray], int]]:
    """Name, orders of the errors, and the first error that is scored."""
    whole = np.arange(count)
    yield "halves swapped", [np.concatenate([whole[half:], whole[:half]])], count - half
    block = block_steps(np.count_nonzero(case.scored), case.track.horizon)
    for name, steps in (("shuffled in blocks", block), ("shuffled one by one", 1)):
        blocks = [whole[first : first + steps] for first in range(0, count, steps)]
        yield (
            name,
            [
                np.concatenate([blocks[i] for i in rng.permutation(len(blocks))])
                for _ in range(SHUFFLES)
            ],
            half,
        )


def _covered(errors: Floats, horizon: int, half: int) -> list[np.ndarray]:
    """Of each column (steps, columns) whether errors from `half` on stayed below the quantile."""
    moves = log_moves(errors, horizon)[LEVELS.index(ASKED_LEVEL)]
    then = np.concatenate([np.full((horizon, errors.shape[1]), np.nan), moves[:-horizon]])
    flags = errors <= then
    return [flags[half:, i][np.isfinite(errors[half:, i])] for i in range(errors.shape[1])]


def show(cases: Sequence[Case]) -> None:
    """Print the remedies and the ablation."""
    print("\nCoverage of the 0.9 quantile. Remedies, on the panel's forecasts:")
    tried = list(remedies(cases))
    for found in tried:
        print(
            f"  {found.name:30s} {found.horizon} ahead: pinball(0.9) {found.pinball_ratio:.3f}, "
            f"pooled {found.coverage_ratio:.3f}, outside {found.outside}"
        )
    rows = list(reordered(cases))
    print(f"Ablation: the same errors in another order ({SHUFFLES} shuffles)")
    for horizon in sorted({case.track.horizon for case in cases}):
        of_horizon = [row for row in rows if row.case.track.horizon == horizon]
        ways = "".join(_outsiders(of_horizon, name) for name in of_horizon[0].outsiders)
        print(
            f"  {horizon} ahead: outside in order {sum(r.outside for r in of_horizon)} of "
            f"{len(of_horizon)}{ways}"
        )
    print("  series outside or within 0.01 of it, and where their coverage lies then:")
    for row in rows:
        if row.outside or _is_near(row.case.score):
            print(f"  {_one(row)}")
            of_remedies = ", ".join(
                f"{found.name} {found.of_series[_called(row.case)]:.3f}"
                for found in tried
                if found.horizon == row.case.track.horizon
            )
            print(f"    by remedy: {of_remedies}")


def _is_near(score: Score) -> bool:
    ends = (score.q90_coverage_low_ratio, score.q90_coverage_high_ratio)
    return min(abs(end - ASKED_LEVEL) for end in ends) <= 0.01


def _outsiders(rows: Sequence[Reordered], name: str) -> str:
    counts = np.sum([row.outsiders[name] for row in rows], axis=0)
    if len(counts) == 1:
        return f"; {name} {counts[0]:.0f}"
    return (
        f"; {name} {counts.mean():.2f} on average ({counts.min():.0f} to {counts.max():.0f}, none "
        f"in {np.count_nonzero(counts == 0)} of {len(counts)})"
    )


def _one(row: Reordered) -> str:
    score, track = row.case.score, row.case.track
    said = [
        f"{_called(row.case)}, {track.horizon} ahead, {score.origins} origins: "
        f"{score.q90_coverage_ratio:.3f} ({score.q90_coverage_low_ratio:.3f} to "
        f"{score.q90_coverage_high_ratio:.3f}); second-half errors above the first half's 0.9 "
        f"quantile {row.second_above_ratio:.3f}"
    ]
    for name, covered in row.covered.items():
        text = f"{name} {np.median(covered):.3f}"
        if len(covered) > 1:
            low, high = np.quantile(covered, [0.05, 0.95])
            text += f" (90 % of them {low:.3f} to {high:.3f})"
        said.append(text)
    return "; ".join(said)
