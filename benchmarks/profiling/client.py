"""Our client beside `vllm bench serve`: the same load, in turns, on the same engine.

Prompts of a fixed length that nobody has sent before, answers of a fixed length. One at a time, or
an open loop with the same even spacing for both: in a closed loop of several, prompts fall in or
out of step by chance, and the tails tell of that rather than of the client. Rounds alternate
(theirs, ours, ours, theirs, …), because the machine drifts.
"""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.profiling.engines import MODEL, Say
from planner.domain.errors import EngineError
from serving.traffic.load import Completion, LoadClient, Timing
from serving.traffic.prompts import PromptWriter
from serving.workers.launcher import LocalSite

Floats = NDArray[np.float64]
Measure = Callable[[Floats], float]
LEVELS = (0.5, 0.9, 0.95, 0.99)
BOUND = 0.03
IN_FLIGHT = 1.5
"""Periods of an open loop that an answer takes. At a whole number of them chance decides how many
others run when a prompt comes, and the tails tell of that: 3 % in the pace became 18 % of TTFT."""
DRAWS = 1_000
PILOTS, PILOT_REQUESTS, UNSETTLED = 3, 10, 3
PANDAS = ("pandas==2.3.3", "python-dateutil==2.9.0.post0", "pytz==2025.2", "six==1.17.0")


class Target(Protocol):
    """What is asked: engines, or a server whose times are known."""

    @property
    def url(self) -> str:
        """Where it listens."""

    @property
    def site(self) -> LocalSite:
        """Whose `vllm bench serve` and tokenizer are taken."""

    def client(self) -> LoadClient:
        """Our client of it."""

    def writer(self) -> PromptWriter:
        """Writes prompts that nobody wrote before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A load: one request at a time, or evenly spaced.

    Parameters
    ----------
    rate_rps : float or None
        Requests a second, evenly spaced; None: each after the one before.
    """

    requests: int
    rate_rps: float | None
    input_tokens: int
    output_tokens: int
    rounds: int


@dataclass(slots=True, kw_only=True)
class Taken:
    """All rounds of one client.

    Parameters
    ----------
    ttft_s, gaps_s : list of (1,) and (gaps,) float
        Of each request, seconds.
    cpu_share : list of float
        Processor time of the client over the time of a round, cores.
    """

    ttft_s: list[Floats] = field(default_factory=list)
    gaps_s: list[Floats] = field(default_factory=list)
    cpu_share: list[float] = field(default_factory=list)


def out_of_step(now: Target, loop: Loop, say: Say) -> Loop:
    """The open loop whose answers take `IN_FLIGHT` periods on this machine, today."""
    for _ in range(PILOTS):
        prompts = _prompts(now, replace(loop, requests=PILOT_REQUESTS))
        answers = asyncio.run(_load(now, prompts, loop))[UNSETTLED:]
        took_s = float(np.median([a.ttft_s + float(a.gaps_s().sum()) for a in answers]))
        loop = replace(loop, rate_rps=IN_FLIGHT / took_s)
    say(f"answers take {took_s:.2f} s: {loop.rate_rps:.2f} requests/s, evenly spaced")
    return loop


def side_by_side(now: Target, loop: Loop, folder: Path, say: Say) -> tuple[Taken, Taken]:
    """Run all rounds; (ours, theirs)."""
    ours, theirs = Taken(), Taken()
    for number in range(loop.rounds):
        turns = (_theirs, _ours) if number % 2 == 0 else (_ours, _theirs)
        for turn in turns:
            turn(now, loop, folder, ours if turn is _ours else theirs)
        say(f"round {number + 1} of {loop.rounds}")
    return ours, theirs


def _prompts(now: Target, loop: Loop) -> list[str]:
    writer = now.writer()
    return [writer.unique(loop.input_tokens, number=i) for i in range(loop.requests)]


def _ours(now: Target, loop: Loop, _folder: Path, taken: Taken) -> None:
    prompts = _prompts(now, loop)
    began_s, cpu_s = time.perf_counter(), time.process_time()
    answers = asyncio.run(_load(now, prompts, loop))
    taken.cpu_share.append((time.process_time() - cpu_s) / (time.perf_counter() - began_s))
    if failed := next((a.error for a in answers if a.error), ""):
        raise EngineError(f"our client: {failed}")
    taken.ttft_s += [np.array([a.ttft_s]) for a in answers]
    taken.gaps_s += [a.gaps_s() for a in answers]


async def _load(now: Target, prompts: Sequence[str], loop: Loop) -> list[Timing]:
    client = now.client()
    began_s = time.perf_counter()

    async def send(number: int, prompt: str) -> Timing:
        if loop.rate_rps is not None:
            due_s = began_s + (number + 1) / loop.rate_rps
            await asyncio.sleep(max(due_s - time.perf_counter(), 0.0))
        return await client.send(Completion(prompt=prompt, output_tokens=loop.output_tokens))

    try:
        if loop.rate_rps is None:
            return [await send(i, p) for i, p in enumerate(prompts)]
        return await asyncio.gather(*(send(i, p) for i, p in enumerate(prompts)))
    finally:
        await client.close()


def _theirs(now: Target, loop: Loop, folder: Path, taken: Taken) -> None:
    data, result = folder / "prompts.jsonl", folder / "vllm-bench.json"
    data.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in _prompts(now, loop)))
    result.unlink(missing_ok=True)
    site = now.site
    line = [str(site.engine.python), "-m", "vllm.entrypoints.cli.main", "bench", "serve"]
    line += ["--backend", "openai", "--base-url", now.url, "--model", MODEL]
    line += ["--tokenizer", str(site.model.directory), "--dataset-name", "custom"]
    line += ["--dataset-path", str(data), "--skip-chat-template", "--disable-shuffle"]
    line += ["--custom-output-len", str(loop.output_tokens), "--ignore-eos", "--disable-tqdm"]
    line += ["--num-prompts", str(loop.requests)]
    if loop.rate_rps is None:
        line += ["--max-concurrency", "1"]
    else:  # gaps from a gamma distribution of this shape: even to a thousandth
        line += ["--request-rate", str(loop.rate_rps), "--burstiness", "1000000"]
    line += ["--num-warmups", "0", "--temperature", "0", "--save-result", "--save-detailed"]
    line += ["--result-dir", str(folder), "--result-filename", result.name]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONPATH": str(_with_pandas(site.engine.python, folder)),
    }
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    if done.returncode or not result.exists():
        raise EngineError(
            "vllm bench serve failed",
            log_tail=tuple((done.stdout + done.stderr).splitlines()[-12:]),
        )
    found = json.loads(result.read_text())
    if found["completed"] != loop.requests:
        raise EngineError(f"vllm bench serve completed {found['completed']} of {loop.requests}")
    taken.ttft_s += [np.array([ttft]) for ttft in found["ttfts"]]
    taken.gaps_s += [np.array(gaps) for gaps in found["itls"]]


def _with_pandas(python: Path, folder: Path) -> Path:
    """Its data set of prompts from a file wants pandas, which the lean CPU engine does without."""
    packages = folder / "pandas"
    if not packages.exists():
        line = [str(python), "-m", "pip", "install", "-q", "--no-deps", "--target", str(packages)]
        subprocess.run([*line, *PANDAS], check=True)
    return packages


def table(ours: Taken, theirs: Taken) -> str:
    """Percentiles of both, Markdown, and how sure their difference is: requests drawn again."""
    lines = [
        "| measure | ours | vllm bench serve | difference | 95 % interval of it | asked |",
        "|---|---|---|---|---|---|",
    ]
    for title, column, measure in _measures():
        mine, other = getattr(ours, column), getattr(theirs, column)
        a, b = (_of(measure, v) for v in (mine, other))
        low, high = _interval(mine, other, measure)
        lines.append(
            f"| {title} | {1e3 * a:,.1f} ms | {1e3 * b:,.1f} ms | {a / b - 1:+.1%} "
            f"| {low:+.1%} to {high:+.1%} | {BOUND:.0%} |"
        )
    return "\n".join([*lines, "", _cores(ours)])


def table_with_truth(ours: Taken, theirs: Taken, written: Taken) -> str:
    """Percentiles of both beside what the server wrote, where both were given the same times."""
    lines = [
        "| measure | the server wrote | ours | vllm bench serve | ours over the server's "
        "| theirs over the server's | ours over theirs | asked |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for title, column, measure in _measures():
        a, b, true = (_of(measure, getattr(v, column)) for v in (ours, theirs, written))
        lines.append(
            f"| {title} | {1e3 * true:,.1f} ms | {1e3 * a:,.1f} ms | {1e3 * b:,.1f} ms "
            f"| {a / true - 1:+.1%} | {b / true - 1:+.1%} | {a / b - 1:+.1%} | {BOUND:.0%} |"
        )
    return "\n".join([*lines, "", _cores(ours)])


def _measures() -> Iterator[tuple[str, str, Measure]]:
    """Name, column of `Taken`, and what of it."""
    for title, column in (("TTFT", "ttft_s"), ("ITL", "gaps_s")):
        for level in LEVELS:
            yield f"{title} p{100 * level:.0f}", column, partial(np.quantile, q=level)
        yield f"{title} mean", column, np.mean


def _of(measure: Measure, values: Sequence[Floats]) -> float:
    return float(measure(np.concatenate(values)))


def _cores(ours: Taken) -> str:
    return f"Our client used {np.mean(ours.cpu_share):.2f} cores."


def _interval(
    mine: Sequence[Floats], other: Sequence[Floats], measure: Measure
) -> tuple[float, float]:
    """Of ours over theirs less one, by bootstrap over whole requests, whose gaps go together."""
    rng = np.random.default_rng(0)

    def again(requests: Sequence[Floats]) -> float:
        chosen = rng.integers(0, len(requests), len(requests))
        return float(measure(np.concatenate([requests[i] for i in chosen])))

    ratios = [again(mine) / again(other) - 1 for _ in range(DRAWS)]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)
