"""The twin against the recordings: the same requests at their real instants, and the errors.

A measure passes when the twin is within its bound of the median repeat, or within 1.5 times the
spread between the repeats, whichever is larger.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.real_engines.cases import CASES, Arrivals, Case
from benchmarks.real_engines.recording import Run, read_runs, write_atomically
from benchmarks.real_engines.steps import Beside, read_steps
from benchmarks.real_engines.sweeps import profiled_case
from planner.domain.errors import InputError
from planner.domain.fleet import Role
from planner.domain.profile import Profile, TimeTable
from planner.domain.workload import Workload
from planner.simulate import ReplicaGroup, Scenario, SimulationResult, simulate
from profiler.files import read_profile
from profiler.measure.probe import ratios_of

Floats = NDArray[np.float64]

SPREADS = 1.5
FEWEST_GAPS = 50
"""A batch that was seen less often has no mean worth using."""
BOUNDS = {
    "TTFT p50": 0.10,
    "TTFT p95": 0.15,
    "ITL p50": 0.10,
    "ITL p95": 0.15,
    "throughput": 0.05,
}


Figures = dict[str, float]
"""The compared measures, in seconds and tokens/s, by name as in `BOUNDS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One measure of one case under one arrival pattern.

    Parameters
    ----------
    real : tuple of float
        One value per repeat.
    twin : float
        Median of the predictions for each repeat's own instants.
    """

    case: str
    arrivals: str
    measure: str
    real: tuple[float, ...]
    twin: float

    @property
    def median(self) -> float:
        """Median of the repeats."""
        return float(np.median(self.real))

    @property
    def spread_ratio(self) -> float:
        """Largest less smallest repeat, over the median."""
        return (max(self.real) - min(self.real)) / self.median

    @property
    def error_ratio(self) -> float:
        """Twin over the median repeat, less 1."""
        return self.twin / self.median - 1

    @property
    def verdict(self) -> str:
        """Within the fixed bound, within the wider one that the spread allows, or missed."""
        fixed = BOUNDS[self.measure]
        if abs(self.error_ratio) <= fixed:
            return "met"
        return "within spread" if abs(self.error_ratio) <= SPREADS * self.spread_ratio else "MISSED"


def figures(ttft_s: Floats, itl_s: tuple[float, float], tokens_per_s: float) -> Figures:
    """The measures from TTFTs, the 50 % and 95 % quantiles of the gaps, and throughput."""
    p50_s, p95_s = (float(q) for q in np.quantile(ttft_s, (0.5, 0.95)))
    return dict(zip(BOUNDS, (p50_s, p95_s, *itl_s, tokens_per_s), strict=True))


def real_figures(run: Run) -> Figures:
    """What the clients saw."""
    p50_s, p95_s = np.quantile(run.gaps_s(), (0.5, 0.95))
    return figures(run.ttft_s(), (float(p50_s), float(p95_s)), run.throughput_tokens_per_s())


def sent_workload(run: Run) -> Workload:
    """The requests at the instants at which they were really sent."""
    sent_s = np.maximum.accumulate(np.array([s.sent_s for s in run.sent]))
    count = len(run.sent)
    return Workload(
        start_at=datetime.fromisoformat(run.recorded_at),
        arrival_offset_s=np.maximum(sent_s, 0.0),
        input_tokens=np.array([s.input_tokens for s in run.sent], dtype=np.int64),
        output_tokens=np.array([s.output_tokens for s in run.sent], dtype=np.int64),
        cached_tokens=np.zeros(count, dtype=np.int64),
        request_class=np.full(count, "default"),
        duration_s=float(sent_s[-1]),
    )


def replayed(case: Case, profile: Profile, workload: Workload) -> SimulationResult:
    """The twin of a deployment, given its requests.

    Raises
    ------
    InputError
        When a request was not answered to the end.
    """
    groups = tuple(
        ReplicaGroup(profile=profile, role=role, replicas=case.count(role))
        for role in Role
        if case.count(role)
    )
    result = simulate(Scenario(groups=groups, workload=workload))
    if np.isnan(result.e2e_s).any():
        raise InputError(f"the twin did not finish every request of {case.name}")
    return result


def figures_of(result: SimulationResult) -> Figures:
    """What the twin predicts."""
    p50, p95 = result.itl_quantile_s(0.5), result.itl_quantile_s(0.95)
    if p50 is None or p95 is None:
        raise InputError("the requests have no gaps between tokens: record longer answers")
    span_s = float((result.arrival_s + result.e2e_s).max() - result.arrival_s.min())
    return figures(result.ttft_s, (p50, p95), float(result.output_tokens.sum()) / span_s)


Predict = Callable[[Case, Profile, Run], Figures]


def by_twin(case: Case, profile: Profile, run: Run) -> Figures:
    """The twin as it is."""
    return figures_of(replayed(case, profile, sent_workload(run)))


def noticed_at_once(case: Case, profile: Profile, run: Run) -> Figures:
    """Without the rule that a busy engine notices an arrived KV cache late."""
    limits = replace(profile.limits, late_kv_notice=False)
    return by_twin(case, replace(profile, limits=limits), run)


def with_live_steps(case: Case, profile: Profile, run: Run) -> Figures:
    """With the mean decode step per batch that this run itself had, instead of the sweep's.

    Of an aggregated worker those gaps count in which no request waited for its first token: the
    others hold prompts, too.
    """
    steps = live_steps(run, undisturbed=not case.disaggregated)
    return by_twin(case, replace(profile, decode_step=steps), run)


def live_steps(run: Run, *, undisturbed: bool) -> TimeTable:
    """Mean gap between tokens by the number of answers that were being written, seconds."""
    written = [s.sent_s + np.array(s.token_at_s) for s in run.answered if len(s.token_at_s) > 1]
    first_s = np.sort([at[0] for at in written])
    last_s = np.sort([at[-1] for at in written])
    middle_s = np.concatenate([(at[1:] + at[:-1]) / 2 for at in written])
    gap_s = np.concatenate([np.diff(at) for at in written])
    batch = np.searchsorted(first_s, middle_s) - np.searchsorted(last_s, middle_s)
    if undisturbed:
        begun_s = np.sort([s.sent_s for s in run.answered])
        quiet = np.searchsorted(begun_s, middle_s + gap_s / 2) == np.searchsorted(
            first_s, middle_s - gap_s / 2, side="right"
        )
        batch, gap_s = batch[quiet], gap_s[quiet]
    seen, counts = np.unique(batch, return_counts=True)
    seen = seen[counts >= FEWEST_GAPS]
    mean_s = np.array([gap_s[batch == n].mean() for n in seen])
    return TimeTable(
        x_name="sequences",
        y_name="context tokens per sequence",
        x=seen.astype(np.float64),
        y=np.zeros(1),
        seconds=np.maximum.accumulate(mean_s)[:, None],
    )


def beside_busy(beside: Beside) -> Predict:
    """With times as measured beside a busy neighbour, for the share of time that it is busy."""
    prompt = beside.prompt_beside_s / beside.prompt_alone_s
    step = beside.step_beside_s / beside.step_alone_s

    def predict(case: Case, profile: Profile, run: Run) -> Figures:
        if not case.disaggregated:
            return by_twin(case, profile, run)
        busy = dict(
            zip(
                (role for role in Role if case.count(role)),
                replayed(case, profile, sent_workload(run)).utilization_ratio,
                strict=True,
            )
        )
        slower = replace(
            profile,
            prefill=_scaled(profile.prefill, 1 + busy[Role.DECODE] * (prompt - 1)),
            decode_step=_scaled(profile.decode_step, 1 + busy[Role.PREFILL] * (step - 1)),
        )
        return by_twin(case, slower, run)

    return predict


def _scaled(table: TimeTable, ratio: float) -> TimeTable:
    return replace(table, seconds=table.seconds * ratio)


def profile_of(case: Case, folder: Path) -> Profile:
    """The profile measured under the case's quota, on its path (through the P/D router or not)."""
    profile = read_profile(folder / f"profile-{profiled_case(case)}.json")
    steps = read_steps(folder / f"steps-{profiled_case(case)}.json").steps
    rows = [ratios_of(np.array(s.gaps_s)) for s in steps]
    return replace(profile, step_ratios=tuple(np.mean(rows, axis=0).tolist()))


def scores(folder: Path, runs: Sequence[Run], predict: Predict = by_twin) -> list[Score]:
    """Score every case that was recorded."""
    found = []
    for case in CASES:
        for arrivals in Arrivals:
            repeats = [r for r in runs if (r.case, r.arrivals) == (case.name, arrivals)]
            if not repeats:
                continue
            profile = profile_of(case, folder)
            real = [real_figures(r) for r in repeats]
            twin = [predict(case, profile, r) for r in repeats]
            found += [
                Score(
                    case=case.name,
                    arrivals=arrivals,
                    measure=measure,
                    real=tuple(r[measure] for r in real),
                    twin=float(np.median([t[measure] for t in twin])),
                )
                for measure in BOUNDS
            ]
    return found


def table(found: Sequence[Score]) -> str:
    """The table for people, Markdown; milliseconds and tokens/s."""
    lines = [
        "| deployment | arrivals | measure | real (median) | spread | twin | error "
        "| bound | 1.5 x spread | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for s in found:
        scale, unit = (1.0, "tok/s") if s.measure == "throughput" else (1e3, "ms")
        lines.append(
            f"| {s.case} | {s.arrivals} | {s.measure} | {scale * s.median:,.1f} {unit} "
            f"| {s.spread_ratio:.1%} | {scale * s.twin:,.1f} {unit} | {s.error_ratio:+.1%} "
            f"| {BOUNDS[s.measure]:.0%} | {SPREADS * s.spread_ratio:.1%} | {s.verdict} |"
        )
    return "\n".join(lines)


ABLATED = ("TTFT p50", "TTFT p95", "ITL p50", "ITL p95")


def ablation_table(folder: Path, runs: Sequence[Run]) -> str:
    """What single things are worth; Markdown. Neighbours were measured apart from the runs."""
    columns = {
        "twin": scores(folder, runs),
        "caches noticed at once": scores(folder, runs, noticed_at_once),
        "decode steps as the run had them": scores(folder, runs, with_live_steps),
    }
    pair = folder / "steps-1p1d.json"
    beside = read_steps(pair).beside if pair.exists() else None
    if beside is not None:
        columns["times beside busy neighbours"] = scores(folder, runs, beside_busy(beside))
    lines = [
        "| deployment | arrivals | measure | real | " + " | ".join(columns) + " |",
        "|---|---|---|---|" + "---|" * len(columns),
    ]
    lines += [
        f"| {row[0].case} | {row[0].arrivals} | {row[0].measure} | {1e3 * row[0].median:.1f} ms | "
        + " | ".join(f"{1e3 * s.twin:.1f} ({s.error_ratio:+.0%})" for s in row)
        + " |"
        for row in zip(*columns.values(), strict=True)
        if row[0].measure in ABLATED
    ]
    if beside is not None:
        lines.append(
            f"\nBeside a busy neighbour a prompt takes "
            f"{beside.prompt_beside_s / beside.prompt_alone_s - 1:+.0%} "
            f"({1e3 * beside.prompt_alone_s:.1f} ms alone), a step "
            f"{beside.step_beside_s / beside.step_alone_s - 1:+.0%} "
            f"({1e3 * beside.step_alone_s:.1f} ms alone)."
        )
    return "\n".join(lines)


def conditions(runs: Sequence[Run]) -> str:
    """The machine during every run, Markdown."""
    lines = [
        "| run | recorded | answered | neighbours | steal | gauge p50 | client late "
        "| worker cores | throttled periods | KV transfers | prompt tokens computed by decode |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in runs:
        m = r.machine
        throttled = " ".join(f"{w.throttled_periods / max(w.periods, 1):.0%}" for w in m.workers)
        lines.append(
            f"| {r.case} {r.arrivals} {r.repeat} | {r.recorded_at} "
            f"| {len(r.answered)}/{len(r.sent)} | {m.neighbour_cores:.2f} | {m.steal_cores:.2f} "
            f"| {1e3 * float(np.median(m.gauge_s)):.2f} ms | {1e3 * r.late_s:.0f} ms "
            f"| {' '.join(f'{w.cores:.2f}' for w in m.workers)} | {throttled} "
            f"| {r.transfers} | {r.computed_by_decode} |"
        )
    return "\n".join(lines)


def main(folder: Path) -> None:
    """Print the tables and write the summary beside the recordings."""
    runs = read_runs(folder)
    if not runs:
        raise InputError(
            f"{folder} holds no recording: run `python -m benchmarks.real_engines record`"
        )
    found = scores(folder, runs)
    sys.stdout.write(table(found) + "\n\n" + ablation_table(folder, runs) + "\n\n")
    sys.stdout.write(conditions(runs) + "\n")
    summary = {
        "schema": "poolwise/real-engine-scores/v1",
        "scored_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "scores": [
            asdict(s)
            | {
                "spread_ratio": s.spread_ratio,
                "error_ratio": s.error_ratio,
                "bound_ratio": BOUNDS[s.measure],
                "verdict": s.verdict,
            }
            for s in found
        ],
    }
    write_atomically(folder / "scores.json", (json.dumps(summary, indent=1) + "\n").encode())
