"""`poolwise serve` as a process of its own, and load that it is told of."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx

from tests.planner.service.examples import NOON, history
from tests.planner.service.imagined import BUSY


@contextmanager
def served(folder, *arguments, log=subprocess.PIPE):
    """A running server; (process, facts that it printed).

    Parameters
    ----------
    log : file
        Takes what it logs. Nobody reads the pipe: after a few hundred requests it is full.
    """
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "planner.service.cli.main", "serve"),
            *("--spec", str(folder / "spec.yaml"), "--json", *arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={
            "POOLWISE_ANSWER_WITHIN_S": "600",  # on a busy machine a plan is to be no job
            **os.environ,
            "POOLWISE_STATE_DIR": str(folder / "state"),
            "POOLWISE_PORT": "0",
        },
    )
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate(timeout=90)


def hand_in(client, here):
    """Windows of a second, 5 requests each, up to now."""
    now = datetime.now(UTC).replace(microsecond=0)
    windows = [
        {
            "start_at": (now - timedelta(seconds=back)).isoformat(),
            "window_s": 1.0,
            "requests": 5,
            "input_tokens": 500,
            "output_tokens": 50,
        }
        for back in range(30, 0, -1)
    ]
    assert client.post(f"{here}/observations", json={"history": windows}).status_code == 201


def hand_in_busy(url, name):
    """A heavy load until now, minute by minute."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    shift = now - NOON
    windows = history(**BUSY)
    for one in windows:
        one["start_at"] = (datetime.fromisoformat(one["start_at"]) + shift).isoformat()
    answer = httpx.post(
        f"{url}/v1/deployments/{name}/observations", json={"history": windows}, timeout=60
    )
    assert answer.status_code == 201, answer.text
