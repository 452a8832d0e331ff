"""Accuracy by rolling origin: the second half of each series, forecast from what came before."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.forecasting.series import FEWEST_ORIGINS, SeriesGroup
from forecaster.backtest import Score, Track, run_panel, score_of, scored_origins
from planner.domain.workload import Flags, Floats, Integers

HORIZONS = (1, 5)
THEIR_NAMES = ("constant", "arima", "kalman", "prophet")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """One series at one horizon."""

    service: str
    name: str
    step_s: float
    track: Track
    scored: Flags
    score: Score


def run(groups: Sequence[SeriesGroup]) -> list[Case]:
    """Every series at both horizons where enough origins are left."""
    cases = []
    for group in groups:
        tracks = run_panel(group.values, HORIZONS, step_s=group.step_s, first_end_s=group.step_s)
        for name, of_series in zip(group.names, tracks, strict=True):
            for track in of_series:
                scored = scored_origins(track)
                if np.count_nonzero(scored) >= FEWEST_ORIGINS:
                    cases.append(
                        Case(
                            service=group.service,
                            name=name,
                            step_s=group.step_s,
                            track=track,
                            scored=scored,
                            score=score_of(track, scored),
                        )
                    )
    return cases


def geometric_mean(values: Sequence[float]) -> float:
    """Of ratios."""
    return float(np.exp(np.mean(np.log(values))))


def theirs(cases: Sequence[Case], python: Path, folder: Path, *, most_origins: int) -> list[dict]:
    """MAE relative to the last value of each predictor and of ours, on the same origins.

    ARIMA and Prophet are slow, so that origins are thinned evenly to `most_origins` a series; all
    observations are given all the same. They answer one step ahead: at five steps the same answer
    counts.
    """
    furthest = [case for case in cases if case.track.horizon == max(HORIZONS)]
    asked = [(case, _thinned(case.scored, most_origins)) for case in furthest]
    series = [
        {
            "name": f"{case.service} {case.name}",
            "step_s": case.step_s,
            "counts": [None if np.isnan(v) else float(v) * case.step_s for v in case.track.values],
            "origins": origins.tolist(),
        }
        for case, origins in asked
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "series.json").write_text(json.dumps(series))
    script = Path(__file__).with_name("theirs.py")
    subprocess.run([python, script, folder], check=True)
    answers = json.loads((folder / "theirs.json").read_text())
    by_name = {
        (case.service, case.name): (origins, answer)
        for (case, origins), answer in zip(asked, answers, strict=True)
    }
    return [
        _row(case, *by_name[case.service, case.name])
        for case in cases
        if (case.service, case.name) in by_name
    ]


def _thinned(scored: Flags, most: int) -> Integers:
    origins = np.flatnonzero(scored)
    return origins[np.unique(np.linspace(0, len(origins) - 1, most).round().astype(int))]


def _row(case: Case, origins: Integers, answer: dict) -> dict:
    track = case.track
    kept = np.isfinite(track.actual[origins])
    actual, last = track.actual[origins][kept], track.last[origins][kept]
    base = np.abs(last - actual).mean()

    def ratio(points: Floats) -> float:
        return float(np.abs(points - actual).mean() / base)

    row = {"service": case.service, "name": case.name, "horizon": track.horizon}
    for name in THEIR_NAMES:
        counts = np.array([np.nan if v is None else v for v in answer[name]], dtype=np.float64)
        row[name] = ratio(
            np.where(np.isnan(counts), track.last[origins], counts / case.step_s)[kept]
        )
        row[f"{name}_s"] = answer[f"{name}_s"] / len(origins)
    row["ours"] = ratio(track.point[origins][kept])
    return row
