"""Real `poolwise serve` processes on one database."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

LEASE_S, DEADLINE_S, RETRY_S = 15.0, 12.0, 0.5
"""Long enough for a machine that has other things to do."""
TAKEOVER_S = LEASE_S + RETRY_S
SLACK_S = 120.0
"""What a busy machine may add to anything."""


def eventually(check: Callable[[], object], within_s: float) -> object:
    """What `check` gives once it is true; what goes wrong on the way is not yet."""
    until = time.monotonic() + within_s
    while True:
        try:
            found, why = check(), ""
        except httpx.HTTPError as error:
            found, why = None, repr(error)
        if found:
            return found
        assert time.monotonic() < until, f"not within {within_s:g} s; {why}"
        time.sleep(0.1)


@dataclass
class Replica:
    """One process and how to talk to it."""

    process: subprocess.Popen
    log: Path
    facts: dict = field(default_factory=dict)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.facts["url"] + path, timeout=10)

    def post(self, path: str, body: object = None) -> httpx.Response:
        return httpx.post(self.facts["url"] + path, json=body, timeout=60)

    def put(self, path: str, body: object) -> httpx.Response:
        return httpx.put(self.facts["url"] + path, json=body, timeout=60)

    def leader(self) -> dict:
        return self.get("/v1/leader").json()

    def leads(self) -> bool:
        return self.leader()["leads"]

    def ticks(self) -> int:
        counted = re.findall(r"poolwise_ticks_total\{.*\} ([\d.]+)", self.get("/metrics").text)
        return int(sum(float(count) for count in counted))

    def kill(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@contextmanager
def replica(
    folder: Path, name: str, *, through: Sequence[str] = (), **environ: str
) -> Iterator[Replica]:
    """A process that serves; killed at the end, stopped or not.

    Parameters
    ----------
    through : sequence of str
        A command that becomes the one that follows it.
    """
    log = folder / f"{name}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [
                *(*through, sys.executable, "-m", "planner.service.cli.main", "serve"),
                *("--spec", str(folder / "spec.yaml"), "--json", "--insecure-local"),
            ],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={
                "POOLWISE_ANSWER_WITHIN_S": "600",
                **os.environ,
                "POOLWISE_STATE_DIR": str(folder / "state"),
                "POOLWISE_PORT": "0",
                "POOLWISE_LEASE_DURATION_S": str(LEASE_S),
                "POOLWISE_RENEW_DEADLINE_S": str(DEADLINE_S),
                "POOLWISE_LEASE_RETRY_S": str(RETRY_S),
                **environ,
            },
        )
    made = Replica(process, log)
    try:
        line = process.stdout.readline()
        assert line, log.read_text()
        made.facts = json.loads(line)
        yield made
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()


@contextmanager
def two(folder: Path, a: dict[str, str], b: dict[str, str]) -> Iterator[tuple[Replica, Replica]]:
    """Two of them; the first leads."""
    with replica(folder, "a", **a) as first:
        eventually(first.leads, SLACK_S)
        with replica(folder, "b", **b) as second:
            eventually(lambda: second.get("/readyz").status_code == 200, SLACK_S)
            yield first, second
