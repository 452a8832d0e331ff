"""The forecaster on every public series that is long enough, beside the last value and others.

    python -m benchmarks.bench_forecast [--theirs PYTHON] [--only accuracy ablation ...]

Rolling origin: the second half of each series is forecast step by step, each time from the steps
before it alone. `--theirs` names the interpreter of an environment with NVIDIA Dynamo's predictors
(`make bench-forecast` makes one); without it they are left out. Traces lie below POOLWISE_DATA.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.forecasting import accuracy, clients, coverage, lengths, speed
from benchmarks.forecasting.accuracy import HORIZONS, THEIR_NAMES, Case, geometric_mean
from benchmarks.forecasting.series import SeriesGroup, groups
from forecaster.backtest import run_panel, score_of, scored_origins
from forecaster.panel import regression, seasonal
from forecaster.panel.panel import METHODS
from forecaster.panel.smoothing import NAMES as SMOOTHING
from forecaster.panel.trees import NAME as TREES

PARTS = ("accuracy", "coverage", "ablation", "theirs", "clients", "lengths", "speed", "decision")
ASKED = {1: (0.90, 0.90), 5: (0.84, 0.84)}
"""MAE and pinball(0.9) relative to the (conformal) last value, by horizon."""


def main() -> None:
    """Print every part that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--theirs", type=Path, help="interpreter with Dynamo's predictors")
    parser.add_argument("--origins", type=int, default=12, help="origins a series for theirs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    asked = parser.parse_args()
    data = os.environ.get("POOLWISE_DATA")
    if not data:
        sys.exit("set POOLWISE_DATA to the folder that holds traces/")
    traces = Path(data) / "traces"
    parts = set(asked.only)
    of_cases = {"accuracy", "coverage", "theirs"}
    series = list(groups(traces)) if parts & {*of_cases, "ablation"} else []
    cases = accuracy.run(series) if parts & of_cases else []
    if "accuracy" in parts:
        _show_accuracy(cases)
    if "coverage" in parts:
        coverage.show(cases)
    if "ablation" in asked.only:
        _show_ablation(series)
    if "theirs" in asked.only and asked.theirs:
        _show_theirs(cases, asked.theirs, asked.origins)
    if "clients" in asked.only:
        _show_clients(traces)
    if "lengths" in asked.only:
        _show_lengths(traces)
    if "speed" in asked.only:
        _show_speed()
    if "decision" in asked.only:
        from benchmarks.forecasting import decision

        decision.show(traces)


def _show_accuracy(cases: Sequence[Case]) -> None:
    print("\nAccuracy: MAE and pinball(0.9) relative to the (conformal) last value")
    print(
        f"{'series':28s} {'step':>6s} {'ahead':>5s} {'n':>5s} {'MAE':>6s} {'MASE':>6s} "
        f"{'pin .5':>6s} {'.8':>6s} {'.9':>6s} {'.95':>6s} {'q90':>5s}  95 % interval"
    )
    outside = 0
    for case in cases:
        score = case.score
        pins = " ".join(f"{ratio or 0:6.3f}" for _, ratio in score.pinball_ratio)
        low, high = score.q90_coverage_low_ratio, score.q90_coverage_high_ratio
        is_outside = coverage.is_outside(score)
        outside += is_outside
        print(
            f"{case.service + ' ' + case.name:28s} {case.step_s:5.0f}s {case.track.horizon:5d} "
            f"{score.origins:5d} {score.mae_ratio:6.3f} {score.mase:6.2f} {pins} "
            f"{score.q90_coverage_ratio:5.3f}  {low:.3f} to {high:.3f}"
            f"{'  outside' if is_outside else ''}"
        )
    for horizon in HORIZONS:
        _show_summary([case for case in cases if case.track.horizon == horizon], horizon)
    print(f"0.90 lies outside {outside} of {len(cases)} intervals (5 % would by chance)")


def _show_summary(cases: Sequence[Case], horizon: int) -> None:
    scores = [case.score for case in cases]
    mae = [score.mae_ratio for score in scores]
    pinball = coverage.pinball(scores)
    print(
        f"{horizon} ahead, {len(cases)} series: MAE {geometric_mean(mae):.3f} "
        f"(asked {ASKED[horizon][0]:.2f}), worst {max(mae):.3f} (asked 1.05); pinball(0.9) "
        f"{geometric_mean(pinball):.3f} (asked {ASKED[horizon][1]:.2f}), worst {max(pinball):.3f}; "
        f"q90 covers {coverage.pooled(scores):.3f} (asked 0.88 to 0.92)"
    )


def _show_ablation(series: Sequence[SeriesGroup]) -> None:
    print("\nAblation: MAE relative to the last value, geometric mean (worst), 1 and 5 ahead")
    variants = {
        "all": METHODS,
        "without regressions": tuple(set(METHODS) - set(regression.NAMES)),
        "without seasonal": tuple(set(METHODS) - set(seasonal.NAMES)),
        "smoothing only": SMOOTHING,
        "with boosted trees": (*METHODS, TREES),
    }
    for name, methods in variants.items():
        ratios: dict[int, list[float]] = {horizon: [] for horizon in HORIZONS}
        for group in series:
            tracks = run_panel(
                group.values,
                HORIZONS,
                step_s=group.step_s,
                first_end_s=group.step_s,
                methods=methods,
            )
            for track in (track for of_series in tracks for track in of_series):
                ratio = score_of(track, scored_origins(track)).mae_ratio
                ratios[track.horizon].append(ratio or 1.0)
        text = ", ".join(
            f"{geometric_mean(found):.3f} ({max(found):.3f})" for found in ratios.values()
        )
        print(f"  {name:22s} {text}", flush=True)


def _show_theirs(cases: Sequence[Case], python: Path, origins: int) -> None:
    print(f"\nNVIDIA Dynamo's predictors (ai-dynamo 1.6.1), at most {origins} origins a series")
    rows = accuracy.theirs(cases, python, Path(".predictors/work"), most_origins=origins)
    for horizon in HORIZONS:
        of_horizon = [row for row in rows if row["horizon"] == horizon]
        for name in (*THEIR_NAMES, "ours"):
            ratios = [row[name] for row in of_horizon]
            took = (
                ""
                if name == "ours" or horizon > 1
                else f", {np.mean([row[f'{name}_s'] for row in of_horizon]):.3f} s a forecast"
            )
            print(
                f"  {horizon} ahead {name:9s} MAE {geometric_mean(ratios):6.3f}, worst "
                f"{max(ratios):7.3f}{took}"
            )


def _show_clients(traces: Path) -> None:
    print("\nBottom-up: MAE relative to the last value, the sum of clients against the total")
    for row in clients.bottom_up(traces):
        print(
            f"  {row['service']:18s} {row['horizon']} ahead: clients added {row['bottom_up']:.3f}, "
            f"total {row['total']:.3f}"
        )


def _show_lengths(traces: Path) -> None:
    print("\nJoint lengths of the next window: energy distance to what came (less is better)")
    for row in lengths.distances(traces):
        ways = ", ".join(f"{k} {v:.3f}" for k, v in row.items() if isinstance(v, float))
        print(f"  {row['series']:24s} {row['windows']:4d} windows: {ways}")


def _show_speed() -> None:
    one = speed.one_deployment()
    print(
        f"\nSpeed: one deployment of {speed.CLASSES} classes, {speed.HISTORY} windows: first "
        f"forecast {one['first_s']:.2f} s, each update {one['update_ms']:.0f} ms (asked 100); "
        f"1,000 series: one update {speed.many_series():.2f} s (asked 60)"
    )


if __name__ == "__main__":
    main()
