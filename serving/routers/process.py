"""What all router adapters share: a supervised process with an HTTP API on loopback."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import httpx
from prometheus_client.parser import text_string_to_metric_families

from planner.domain.errors import RouterError
from planner.domain.fleet import Role
from serving.workers.processes import (
    MARKER,
    check_port,
    end_supervised,
    free_ports,
    fresh_log,
    kill_supervised,
    log_tail,
    spawn_supervised,
)

T = TypeVar("T")

START_TIMEOUT_S = 30.0
CHANGE_TIMEOUT_S = 45.0
POLL_S = 0.05
RETRY_OPTIONS = (
    *("--retry-max-retries", "5", "--retry-initial-backoff-ms", "100"),
    *("--retry-backoff-multiplier", "2"),
)
"""Requests that failed before their first token are tried again, on another worker where there is
one, for three seconds in all: as long as it takes to put a standby worker in a dead one's place.
Both routers spell these alike."""
NIXL_METRIC = "vllm:nixl_xfer_time_seconds"
"""On the metrics page of every worker that was started with NixlConnector, and of no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterProcess:
    """A running router, bound to loopback: routers here have no authentication."""

    name: str
    url: str
    metrics_url: str
    log_path: Path
    process: "subprocess.Popen[bytes]"
    client: httpx.Client

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def stop(self) -> None:
        """End the process."""
        self.client.close()
        end_supervised([self.process])

    def kill(self) -> None:
        """Kill a process that hangs; it then counts as one that ended by itself."""
        kill_supervised(self.process)

    def request(self, method: str, path: str, json: object = None) -> httpx.Response:
        """Ask the router.

        Raises
        ------
        RouterError
            When it does not answer, with the last lines of its log.
        """
        try:
            return self.client.request(method, path, json=json)
        except (httpx.HTTPError, RuntimeError) as error:  # the latter: closed meanwhile
            raise RouterError(
                f"the {self.name} does not answer ({error}); its log is {self.log_path}:\n"
                + "\n".join(f"  | {x}" for x in log_tail(self.log_path, lines=6))
            ) from error

    def wait(self, condition: Callable[[], T | None], what: str) -> T:
        """Ask again and again until there is an answer.

        Raises
        ------
        RouterError
        """
        deadline = time.monotonic() + CHANGE_TIMEOUT_S
        while (value := condition()) is None:
            if time.monotonic() > deadline:
                raise RouterError(
                    f"the {self.name} took more than {CHANGE_TIMEOUT_S:.0f} s {what}; "
                    f"its log is {self.log_path}"
                )
            time.sleep(POLL_S)
        return value

    def metric_total(self, name: str, **labels: str) -> int:
        """Sum of the samples of a metric that carry these labels; 0 before the first one."""
        try:
            text = self.client.get(self.metrics_url).text
        except httpx.HTTPError as error:
            raise RouterError(f"the metrics of the {self.name} do not answer: {error}") from error
        return sum(
            int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and all(sample.labels.get(k) == v for k, v in labels.items())
        )

    def check_worker(self, url: str, role: Role) -> None:
        """Refuse a worker that does not answer, or whose KV cache could not be handed over.

        Without a connector requests are answered all the same, only that decode computes every
        prompt once more and nobody notices.

        Raises
        ------
        RouterError
        """
        try:
            health = self.client.get(f"{url}/health")
            page = self.client.get(f"{url}/metrics")
        except httpx.HTTPError as error:
            raise RouterError(f"worker {url} does not answer, it was not added: {error}") from error
        if health.status_code != 200:
            raise RouterError(
                f"worker {url} is not healthy (HTTP {health.status_code}), it was not added"
            )
        if role is not Role.AGGREGATED and NIXL_METRIC not in page.text:
            raise RouterError(
                f"worker {url} moves no KV caches (its metrics lack {NIXL_METRIC}), so decode "
                "would compute every prompt again; it was not added: start it with NixlConnector"
            )


@dataclass(frozen=True, slots=True)
class OwnRouter:
    """What every router that runs as a process of ours tells alike; adapters add the rest."""

    running: RouterProcess

    @property
    def url(self) -> str:
        """Base URL of its OpenAI-compatible API."""
        return self.running.url

    @property
    def metrics_url(self) -> str:
        """Its metrics page."""
        return self.running.metrics_url

    @property
    def pid(self) -> int:
        """Process that the router hangs below."""
        return self.running.process.pid

    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.running.is_alive()

    def kill(self) -> None:
        """Kill a router that hangs."""
        self.running.kill()


def start_process(
    name: str,
    package: str,
    line: Callable[[int, int], list[str]],
    *,
    state_dir: Path,
    port: int | None,
) -> RouterProcess:
    """Start a router and wait until it lists its workers.

    Parameters
    ----------
    package : str
        Python package that brings the router.
    line : callable
        Arguments after the interpreter, from (API port, metrics port).
    port : int or None
        Of its API; None: any free one.

    Raises
    ------
    RouterError
        When it is not installed or does not come up.
    NoFreePortError
        When the port is taken.
    """
    if find_spec(package) is None:
        raise RouterError(
            f"the router {package} is not installed: pip install 'poolwise[serve]' (brings it)"
        )
    if port is not None:
        check_port(port, whose=f"the {name}")
    api_port, metrics_port = free_ports(2)
    api_port = api_port if port is None else port
    log_path = fresh_log(state_dir, name)
    environment = {k: os.environ[k] for k in ("PATH", "HOME", "LANG") if k in os.environ}
    environment[MARKER] = str(state_dir.resolve())
    router = RouterProcess(
        name=name,
        url=f"http://127.0.0.1:{api_port}",
        metrics_url=f"http://127.0.0.1:{metrics_port}/metrics",
        log_path=log_path,
        process=spawn_supervised(
            [sys.executable, "-m", *line(api_port, metrics_port)],
            environment=environment,
            log_path=log_path,
        ),
        client=httpx.Client(base_url=f"http://127.0.0.1:{api_port}", timeout=15.0),
    )
    _await_up(router)
    return router


def _await_up(router: RouterProcess) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and router.is_alive():
        try:
            if router.client.get("/workers").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(POLL_S)
    router.stop()
    raise RouterError(
        f"the {router.name} did not start; its last log lines:\n"
        + "\n".join(f"  | {x}" for x in log_tail(router.log_path))
    )
