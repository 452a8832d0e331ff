"""Readers and writers on one SQLite store, beside the same readers on an empty FastAPI route."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count, cycle
from pathlib import Path

import aiohttp
import numpy as np
import uvicorn
from fastapi import FastAPI

from benchmarks.service.result import Result, Say
from planner.service.store import DecisionRecord, open_store
from tests.planner.service.examples import fleet, history, write_spec
from tests.planner.service.plans import example_fleet, example_record
from tests.planner.service.store.test_store import read

MOST_RATIO = 5.0
"""p99 of a read over that of an empty route: asked for at most."""
ROUNDS = 4
"""The service and the empty route are measured in turns, so that both see the same machine."""
WRITE_PAUSE_S = 0.05
PLANS, DECISIONS, WINDOWS = 100, 1_000, 2_000
READS = (
    "/v1/plans?limit=20",
    "/v1/plans/plan-1",
    "/v1/deployments/shop/decisions?limit=20",
    "/v1/deployments/shop/fleet",
    "/v1/leader",
    "/readyz",
)


@dataclass
class Seen:
    """Latencies by what was asked, seconds, and what went wrong."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    wrong: list[str] = field(default_factory=list)

    def p99_s(self, *asked: str) -> float:
        return float(np.quantile(np.concatenate([self.seconds[name] for name in asked]), 0.99))


def run(folder: Path, say: Say, *, seconds: float, readers: float, writers: float) -> Result:
    url = f"sqlite:///{folder / 'poolwise.db'}"
    _fill(url)
    write_spec(folder, loop={"mode": "advise", "slow_interval_s": 5})
    ours, empty = Seen(), Seen()
    with _served(folder, url) as service, _empty() as bare:
        for turn in range(ROUNDS):
            share_s = seconds / ROUNDS
            asyncio.run(_load(empty, bare, ("/",), seconds=share_s / 2, readers=int(readers)))
            both = {"readers": int(readers), "writers": int(writers)}
            asyncio.run(_load(ours, service, READS, seconds=share_s, **both))
            say(f"turn {turn + 1} of {ROUNDS}")
    log = (folder / "serve.log").read_text()
    locked = log.count("locked")
    return _result(ours, empty, locked, readers=int(readers), writers=int(writers))


def _fill(url: str) -> None:
    store = open_store(url)
    now = datetime.now(UTC)
    for number in range(PLANS):
        at = now - timedelta(minutes=PLANS - number)
        store.add_plan(example_record(f"plan-{number}", at=at), actor="bench")
    for number in range(DECISIONS):
        store.add_decision(
            DecisionRecord(
                deployment="shop",
                decided_at=now,
                plan_id=None,
                outcome="unchanged",
                reason=f"the fleet is what the plan wants, {number}",
            )
        )
    windows = read(history(WINDOWS))
    store.add_windows("shop", "tiny", windows, received_at=now, actor="bench")
    store.put_fleet("shop", example_fleet(), received_at=now, actor="bench")
    store.close()


@contextmanager
def _served(folder: Path, url: str) -> Iterator[str]:
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "planner.service.cli.main", "serve", "--json",
             "--spec", str(folder / "spec.yaml"), "--insecure-local", "--port", "0"],
            stdout=subprocess.PIPE, stderr=log, text=True,
            env={**os.environ, "POOLWISE_DATABASE_URL": url},
        )  # fmt: skip
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()
            process.wait(60)


def _serve_empty(fd: int) -> None:
    app = FastAPI(docs_url=None, redoc_url=None)

    @app.get("/")
    def nothing() -> dict[str, str]:
        return {}

    config = uvicorn.Config(app, log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])


@contextmanager
def _empty() -> Iterator[str]:
    """An empty FastAPI route in a process of its own."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        code = f"from benchmarks.service import load; load._serve_empty({listener.fileno()})"
        process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[listener.fileno()])
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.terminate()
            process.wait(60)


async def _load(
    seen: Seen,
    url: str,
    reads: tuple[str, ...],
    *,
    seconds: float,
    readers: int,
    writers: int = 0,
) -> None:
    """So many readers and writers at once, each asking again as soon as it was answered."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as session:
        await _ask(Seen(), session, reads[0])  # until it answers, nothing is measured
        until = time.monotonic() + seconds
        clients = [_reads(seen, session, reads, n, until) for n in range(readers)]
        clients += [_writes(seen, session, n, until) for n in range(writers)]
        await asyncio.gather(*clients)


async def _reads(
    seen: Seen, session: aiohttp.ClientSession, reads: tuple[str, ...], first: int, until: float
) -> None:
    asked = cycle(reads[first % len(reads) :] + reads[: first % len(reads)])
    while time.monotonic() < until:
        await _ask(seen, session, next(asked))


async def _writes(seen: Seen, session: aiohttp.ClientSession, writer: int, until: float) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    for number in count():
        if time.monotonic() > until:
            return
        if number % 2:
            await _ask(seen, session, "/v1/deployments/shop/fleet", "PUT", fleet())
        else:
            at = now - timedelta(minutes=30 * writer + number % 30)
            window = {"start_at": at.isoformat(), "window_s": 60.0, "requests": 60,
                      "input_tokens": 6000, "output_tokens": 600}  # fmt: skip
            body = {"history": [window]}
            await _ask(seen, session, "/v1/deployments/shop/observations", "POST", body)
        await asyncio.sleep(WRITE_PAUSE_S)


async def _ask(
    seen: Seen, session: aiohttp.ClientSession, path: str, verb: str = "GET", body: object = None
) -> None:
    began = time.monotonic()
    try:
        async with session.request(verb, path, json=body) as answer:
            text = await answer.text()
            status = answer.status
    except aiohttp.ClientError as error:
        seen.wrong.append(f"{verb} {path}: {error!r}")
        return
    seen.seconds[f"{verb} {path}"].append(time.monotonic() - began)
    if status >= 400:
        seen.wrong.append(f"{verb} {path}: {status} {text[:200]}")


def _result(ours: Seen, empty: Seen, locked: int, *, readers: int, writers: int) -> Result:
    base_s = empty.p99_s("GET /")
    names = [f"GET {path}" for path in READS]
    ratio = ours.p99_s(*names) / base_s
    lines = [
        f"{readers} readers and {writers} writers; an empty FastAPI route under as many readers: "
        f"p99 {base_s * 1e3:.0f} ms ({len(empty.seconds['GET /']):,} answers).",
        "",
        "| asked | answers | p50 | p99 | p99 over the empty route's |",
        "|---|---|---|---|---|",
    ]
    for name, seconds in sorted(ours.seconds.items()):
        p50, p99 = (float(np.quantile(seconds, q)) for q in (0.5, 0.99))
        lines.append(f"| `{name}` | {len(seconds):,} | {p50 * 1e3:.0f} ms | {p99 * 1e3:.0f} ms | "
                     f"{p99 / base_s:.1f} |")  # fmt: skip
    lines += [
        "",
        f"All reads together: {ratio:.1f} times the empty route's p99 (asked: at most "
        f"{MOST_RATIO:g}). Errors: {len(ours.wrong)}, lock errors in the log: {locked} (asked: 0).",
        *dict.fromkeys(ours.wrong[:5]),
    ]
    holds = ratio <= MOST_RATIO and not ours.wrong and not locked
    return Result(text="\n".join(lines), holds=holds)
