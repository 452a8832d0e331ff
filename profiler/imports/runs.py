"""Prefill and decode times from summaries of load tests (vLLM bench, guidellm, AIPerf).

A load test knows latencies of whole requests, not of steps. What it shows of them:

* Without load (one request at a time) the median TTFT is the time of the prompt, with everything
  else on the way to the first token (HTTP, tokenizer, scheduling, and where it is
  disaggregated the transfer): counted as prefill, so that their sum is what was measured.
* The time per output token at a load is a decode step of as many sequences as were decoding, by
  Little's law requests/s x (output tokens - 1) x time per token; where the throughput is not
  known, the stated concurrency counts. Their context is the prompt and half the answer. Prompts
  computed in between lengthen it: the median gap between tokens, where the source has it, feels
  that least; else the mean time per token is an upper bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from planner.domain.errors import ProfileError
from profiler.imports.assembly import Imported
from profiler.imports.tables import Floats, Point, decode_table, prefill_table

UNLOADED_RUNNING = 0.1
"""A request that meets another one with a probability below this counts as alone."""
ALIKE_RATIO = 0.05
"""Lengths and batches that differ by less are one: their means are taken."""
MOST_FAILED_RATIO = 0.05
NO_ZONE = "assumed: the times of the runs, written without a zone, are UTC"
CHUNKED_RATIO = 1.2
"""Mean gap over mean time per token; above, an event brings several tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One load test.

    Parameters
    ----------
    where : str
        File and place in it.
    input_tokens, output_tokens : float
        Means of a request.
    completed, failed : int
        Requests.
    requests_per_s : float or None
        Completed ones.
    max_concurrency : float or None
        As stated: requests in flight at the most.
    ttft_s : float
        Median.
    tpot_s : float or None
        Mean of (e2e - ttft) / (output tokens - 1); None: answers of one token.
    gap_s, mean_gap_s : float or None
        Median and mean gap between two events of a stream, where the source has it.
    problem : str
        Why the run counts for nothing; empty: it counts.
    """

    where: str
    model: str | None
    engine: str
    started_at: datetime
    input_tokens: float
    output_tokens: float
    completed: int
    failed: int
    requests_per_s: float | None
    max_concurrency: float | None
    ttft_s: float
    tpot_s: float | None
    gap_s: float | None = None
    mean_gap_s: float | None = None
    problem: str = ""

    @property
    def decoding(self) -> float | None:
        """Sequences that were decoding on average, at least 1; None: not known."""
        if self.tpot_s is None:
            return None
        if self.requests_per_s is None:
            return self.max_concurrency
        return max(self.requests_per_s * (self.output_tokens - 1) * self.tpot_s, 1.0)

    @property
    def alone(self) -> bool:
        """Whether a request hardly ever met another one."""
        if self.max_concurrency == 1:
            return True
        if self.requests_per_s is None:
            return False
        stay_s = self.ttft_s + (self.output_tokens - 1) * (self.tpot_s or 0.0)
        return self.requests_per_s * stay_s < UNLOADED_RUNNING

    @property
    def step_s(self) -> float | None:
        """The decode step; see the module's text."""
        gap, mean, tpot = self.gap_s, self.mean_gap_s, self.tpot_s
        if gap is None or mean is None or tpot is None:
            return tpot
        return tpot if mean > CHUNKED_RATIO * tpot else min(gap, tpot)

    @property
    def context_tokens(self) -> float:
        """Prompt and half the answer."""
        return self.input_tokens + self.output_tokens / 2


def imported_from(runs: Sequence[Run], *, source: str, notes: Sequence[str] = ()) -> Imported:
    """What several runs of one replica show.

    Parameters
    ----------
    source : str
        Program, for provenance.
    notes : sequence of str
        What the reader assumed.

    Raises
    ------
    ProfileError
        When they are of several models, or not enough for prefill and decode times.
    """
    said = list(notes)
    used = _usable(runs, said)
    model = _one_model(used)
    prefill = prefill_table(_prompts(used, said))
    decode = decode_table(_steps(used, said))
    busiest = max(used, key=lambda r: (r.decoding or 1.0) * r.context_tokens)
    return Imported(
        prefill=prefill.table,
        decode_step=decode.table,
        model=model,
        source=f"{source}, {len(used)} runs" + (f" of {model}" if model else ""),
        machine="not stated by the source",
        engine=busiest.engine,
        measured_at=max(r.started_at for r in used),
        points=len(used),
        held_tokens=int((busiest.decoding or 1.0) * busiest.context_tokens),
        longest_tokens=int(max(r.input_tokens + r.output_tokens for r in used)),
        notes=(*said, *prefill.notes, *decode.notes),
    )


def _usable(runs: Sequence[Run], notes: list[str]) -> list[Run]:
    used = []
    for run in runs:
        problem = run.problem
        if not problem and run.failed > MOST_FAILED_RATIO * (run.completed + run.failed):
            problem = f"{run.failed} of {run.completed + run.failed} requests failed"
        if problem:
            notes.append(f"refused: {run.where}: {problem}")
        else:
            used.append(run)
    if not used:
        raise ProfileError("no run is left to import:\n" + "\n".join(notes))
    return used


def _one_model(runs: Sequence[Run]) -> str | None:
    names = sorted({r.model for r in runs if r.model})
    if len(names) > 1:
        raise ProfileError(
            f"these runs are of several models ({', '.join(names)}): import those of each on its "
            "own"
        )
    return names[0] if names else None


def _prompts(runs: Sequence[Run], notes: list[str]) -> list[Point]:
    """TTFT without load over prompt lengths."""
    alone = [r for r in runs if r.alone]
    if not alone:
        least = min(runs, key=lambda r: r.max_concurrency or r.decoding or np.inf)
        raise ProfileError(
            f"no run without load, so the time of a prompt is not known: at the least load "
            f"({least.where}) prompts wait for others, and their TTFT is no prefill time. Add a "
            "run at concurrency 1, best one for each of several prompt lengths"
        )
    lengths = _alike(np.array([r.input_tokens for r in alone]))
    points = [
        Point(x=float(x), y=0.0, seconds=r.ttft_s) for x, r in zip(lengths, alone, strict=True)
    ]
    count = len(set(lengths.tolist()))
    notes.append(
        f"prefill: median TTFT of {len(alone)} runs without load at {count} prompt lengths; it "
        "holds all up to the first token (HTTP, tokenizer, scheduling), so first_token_s is 0; "
        "prompts are taken as not cached, and the effect of cached tokens is not known"
    )
    if count == 1:
        notes.append(
            f"prefill: one prompt length only: shorter prompts count as if of {points[0].x:,.0f} "
            "tokens, longer ones are refused; add runs at concurrency 1 with other lengths"
        )
    return points


def _steps(runs: Sequence[Run], notes: list[str]) -> list[Point]:
    """Decode steps over sequences and context."""
    points: list[Point] = []
    for run in runs:
        sequences, step_s = run.decoding, run.step_s
        if sequences is not None and step_s is not None:
            points.append(Point(x=sequences, y=run.context_tokens, seconds=step_s))
    if not points or max(p.x for p in points) < 2:
        raise ProfileError(
            "no run has several sequences decoding at once, so decode steps of batches are not "
            "known: add runs at higher concurrency (8, 32, ...), with answers of many tokens"
        )
    contexts = _alike(np.array([p.y for p in points]))
    points = [replace(p, y=float(y)) for p, y in zip(points, contexts, strict=True)]
    points = _several_batches(_merged(points), notes)
    stated = sum(r.requests_per_s is None for r in runs)
    median = sum(r.step_s is not None and r.step_s != r.tpot_s for r in runs)
    notes.append(
        "decode step: time per output token at requests/s x decode time sequences (Little's law), "
        f"context = prompt + half the answer; the median gap in {median} of {len(runs)} runs, the "
        "mean time per token in the others, which prompts in between lengthen: an upper bound"
    )
    if stated:
        notes.append(f"decode step: {stated} runs without throughput count at stated concurrency")
    return points


def _several_batches(points: Sequence[Point], notes: list[str]) -> list[Point]:
    """Without contexts at which one batch only was measured, unless that is all there is."""
    count: dict[float, int] = {}
    for point in points:
        count[point.y] = count.get(point.y, 0) + 1
    several = [p for p in points if count[p.y] > 1]
    if not several:
        largest = max(points, key=lambda p: p.x)
        several = [p for p in points if p.y == largest.y]
    notes.extend(
        f"refused for decode steps: {point.x:.1f} sequences of {point.y:,.0f} tokens "
        f"({point.seconds * 1e3:.3g} ms): no other batch was measured at that context"
        for point in points
        if point not in several
    )
    if len({p.y for p in several}) == 1:
        notes.append(
            f"decode step: one context only, {several[0].y:,.0f} tokens: its effect is not known, "
            "and steps count as alike at every context"
        )
    return several


def _merged(points: Sequence[Point]) -> list[Point]:
    """Batches of one context that are alike as one point, the mean of all."""
    merged: list[Point] = []
    for y in sorted({p.y for p in points}):
        own = [p for p in points if p.y == y]
        batches = _alike(np.array([p.x for p in own]))
        for x in sorted(set(batches.tolist())):
            seconds = [p.seconds for p, b in zip(own, batches, strict=True) if b == x]
            merged.append(Point(x=x, y=y, seconds=float(np.mean(seconds))))
    return merged


def _alike(values: Floats) -> Floats:
    """Values with those that differ by less than `ALIKE_RATIO` replaced by their mean."""
    order = np.argsort(values, kind="stable")
    found = values.astype(np.float64)
    start = 0
    for end in range(1, len(order) + 1):
        if end < len(order) and values[order[end]] <= values[order[start]] * (1 + ALIKE_RATIO):
            continue
        group = order[start:end]
        found[group] = np.round(values[group].mean(), 2)
        start = end
    return found
