"""Many deployments on one server: whether every slow tick ends inside its interval on two cores."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import psutil
import yaml

from benchmarks.service.result import Result, Say
from planner.service.documents import windows_of
from planner.service.documents.history import WindowDocument
from planner.service.spec.versions import content_of
from planner.service.store import open_store

EXAMPLE = Path(__file__).parents[2] / "docs/examples/spec.yaml"
CORES = 2
WINDOW_S = 60.0
PAST_WINDOWS = 720
"""Half a day of windows is known of each deployment when the server starts."""
LONGEST_START_S = 1_800.0
SCRAPE_S = 5.0
"""Between two looks at `/metrics`, three times as often as Prometheus usually looks."""


@dataclass(frozen=True)
class Reading:
    """What the server told at an instant."""

    at_s: float
    cpu_s: float
    ticks: dict[str, int]
    missed: int
    tick_s: float
    resident_mib: float


def run(folder: Path, say: Say, *, deployments: float, interval_s: float, rounds: float) -> Result:
    names = [f"site-{number}" for number in range(int(deployments))]
    url = f"sqlite:///{folder / 'poolwise.db'}"
    model = _write_specs(folder / "specs", names, interval_s=interval_s)
    _fill(url, names, model)
    with (
        _served(folder, url) as (process, address),
        httpx.Client(base_url=address, timeout=600.0) as client,
    ):
        began_s = time.monotonic()
        learnt = _after(client, process, names, say, seconds=LONGEST_START_S, all_ticked=True)
        # What the first ticks delayed is caught up with: half a day is learnt from once.
        first = _after(client, process, names, say, seconds=interval_s, all_ticked=False)
        last = _after(client, process, names, say, seconds=rounds * interval_s, all_ticked=False)
    start_s = learnt.at_s - began_s
    return _result(first, last, names, interval_s=interval_s, start_s=start_s)


def _write_specs(folder: Path, names: list[str], *, interval_s: float) -> str:
    """A spec a deployment, with everything inline; the model that they plan."""
    folder.mkdir(parents=True)
    content = content_of(EXAMPLE)
    loop = {"mode": "advise", "slow_interval_s": interval_s}
    for name in names:
        text = yaml.safe_dump(
            {**content, "name": name, "loop": loop, "target": {"kind": "dry_run"}}
        )
        (folder / f"{name}.yaml").write_text(text)
    models = content["models"]
    return str(models[0]["name"]) if isinstance(models, list) else ""


def _fill(url: str, names: list[str], model: str) -> None:
    store, now = open_store(url), datetime.now(UTC).replace(second=0, microsecond=0)
    for seed, name in enumerate(names):
        rng = np.random.default_rng(seed)
        read = windows_of(
            [
                _window(now - timedelta(seconds=WINDOW_S * back), _rate_rps(seed), rng)
                for back in range(PAST_WINDOWS, 0, -1)
            ],
            where="bench",
        )
        store.add_windows(name, model, read, received_at=now, actor="bench")
    store.close()


def _rate_rps(number: int) -> float:
    """What a deployment's load varies about, requests/s."""
    return float(np.random.default_rng(number).uniform(2.0, 20.0))


def _window(at: datetime, rate_rps: float, rng: np.random.Generator) -> WindowDocument:
    """A minute of a load with a day, a night, and noise."""
    hour = at.hour + at.minute / 60
    expected = rate_rps * (1.0 + 0.7 * np.sin(2 * np.pi * (hour - 9) / 24)) * WINDOW_S
    requests = int(rng.poisson(expected))
    return WindowDocument(
        start_at=at,
        window_s=WINDOW_S,
        requests=requests,
        input_tokens=800 * requests,
        output_tokens=60 * requests,
    )


@contextmanager
def _served(folder: Path, url: str) -> Iterator[tuple[psutil.Process, str]]:
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "planner.service.cli.main", "serve", "--json",
             "--spec", str(folder / "specs"), "--insecure-local", "--port", "0"],
            stdout=subprocess.PIPE, stderr=log, text=True,
            env={**os.environ, "POOLWISE_DATABASE_URL": url, "POOLWISE_WATCH_INTERVAL_S": "0"},
        )  # fmt: skip
        try:
            yield psutil.Process(process.pid), json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()
            process.wait(300)


def _after(
    client: httpx.Client,
    process: psutil.Process,
    names: list[str],
    say: Say,
    *,
    seconds: float,
    all_ticked: bool,
) -> Reading:
    """What is told after so long, or once every deployment has ticked; loads are handed in."""
    began_s, rng = time.monotonic(), np.random.default_rng(0)
    handed_s = -WINDOW_S
    while True:
        told = _reading(client, process, names)
        if all_ticked and all(told.ticks.get(name) for name in names):
            break
        if told.at_s - began_s >= seconds:
            break
        if told.at_s - handed_s >= WINDOW_S:
            handed_s = told.at_s
            _hand_in(client, names, rng)
            say(f"{sum(told.ticks.values())} ticks, {told.missed} missed, {told.cpu_s:.0f} CPU s")
        time.sleep(SCRAPE_S)
    return told


def _hand_in(client: httpx.Client, names: list[str], rng: np.random.Generator) -> None:
    """The minute that has just ended, of every deployment."""
    at = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(seconds=WINDOW_S)
    for number, name in enumerate(names):
        window = _window(at, _rate_rps(number), rng).model_dump(mode="json")
        path = f"/v1/deployments/{name}/observations"
        client.post(path, json={"history": [window]}).raise_for_status()


def _reading(client: httpx.Client, process: psutil.Process, names: list[str]) -> Reading:
    text = client.get("/metrics").text
    ticks = dict.fromkeys(names, 0)
    for name, count in re.findall(r'poolwise_ticks_total\{deployment="([^"]+)".*\} (\S+)', text):
        ticks[name] += int(float(count))
    missed = re.findall(r"poolwise_ticks_missed_total\{.*\} (\S+)", text)
    waited = re.findall(r"poolwise_tick_seconds_sum\{.*\} (\S+)", text)
    used = process.cpu_times()
    return Reading(
        at_s=time.monotonic(),
        cpu_s=used.user + used.system,
        ticks=ticks,
        missed=int(sum(float(count) for count in missed)),
        tick_s=sum(float(seconds) for seconds in waited),
        resident_mib=process.memory_info().rss / 2**20,
    )


def _result(
    first: Reading, last: Reading, names: list[str], *, interval_s: float, start_s: float
) -> Result:
    made = {name: last.ticks[name] - first.ticks[name] for name in names}
    ticks, seconds = sum(made.values()), last.at_s - first.at_s
    cpu_s = (last.cpu_s - first.cpu_s) / max(ticks, 1)
    whole = int(seconds // interval_s)
    busy = len(names) * cpu_s / (CORES * interval_s)
    late = [name for name, count in made.items() if count < whole - 1]
    holds = last.missed == 0 and not late and busy < 1.0
    text = "\n".join(
        [
            f"{len(names)} deployments, a slow tick each every {interval_s:g} s, {seconds:.0f} s:",
            "",
            "| | asked | measured |",
            "|---|---|---|",
            f"| ticks | {whole} each | {min(made.values())} to {max(made.values())} each |",
            f"| missed ticks, those of the start included | 0 | {last.missed} |",
            f"| until each has ticked once, from a server that answers | | {start_s:.0f} s |",
            f"| CPU seconds a tick, all that the process does included | | {cpu_s:.2f} |",
            f"| share of {CORES} cores that all ticks need | below 100 % | {busy:.0%} |",
            f"| mean time of a tick, waits included | {interval_s:g} s | "
            f"{(last.tick_s - first.tick_s) / max(ticks, 1):.1f} s |",
            f"| resident memory | | {last.resident_mib:.0f} MiB |",
        ]
    )
    return Result(text=text, holds=holds)
