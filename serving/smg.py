"""Adapter for smg (PyPI `smg`), the default P/D router: HTTP relay of NIXL transfer handles."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar, cast

import httpx
from prometheus_client.parser import text_string_to_metric_families

from planner.domain.errors import RouterError
from planner.domain.fleet import Role
from serving.engine import NIXL
from serving.launcher import MARKER, free_ports, log_tail, spawn_supervised
from serving.router import RoutedWorker

T = TypeVar("T")

START_TIMEOUT_S = 30.0
CHANGE_TIMEOUT_S = 45.0
POLL_S = 0.1
_LABELS = {"kv_connector": NIXL, "kv_role": "kv_both"}
_ROLES = {"prefill": Role.PREFILL, "decode": Role.DECODE, "regular": Role.AGGREGATED}
_WORKER_TYPES = {role: name for name, role in _ROLES.items()}


@dataclass(frozen=True, slots=True)
class SmgRouter:
    """A running smg process. Bound to loopback, because smg has no authentication here."""

    url: str
    metrics_url: str
    log_path: Path
    process: "subprocess.Popen[bytes]"
    client: httpx.Client

    def add(self, url: str, role: Role) -> None:
        """Register a worker and wait until the router uses it."""
        body = {
            "url": url,
            "worker_type": _WORKER_TYPES[role],
            "runtime_type": "vllm",
            "connection_mode": "http",
            "labels": _LABELS,
        }
        answer = self._request("POST", "/workers", json=body)
        if answer.status_code not in (200, 201, 202):
            raise RouterError(
                f"the router refused worker {url} as {role} (HTTP {answer.status_code}): "
                f"{answer.text[:300]}"
            )
        try:
            found = self._wait(lambda: self._healthy(url, role), f"to take in {url} as {role}")
        except RouterError:
            self.remove(url)
            raise
        if role is not Role.AGGREGATED and not found.transfers_kv:
            self.remove(url)
            raise RouterError(
                f"the router paired {url} without KV transfer, so decode would compute every "
                "prompt again; the worker was taken out (is it started with NixlConnector?)"
            )

    def remove(self, url: str) -> None:
        """Take a worker out of the rotation; returns when the router has forgotten it."""
        ids = [w["id"] for w in self._listing() if w["url"] == url]
        if not ids:
            return
        answer = self._request("DELETE", f"/workers/{ids[0]}")
        if answer.status_code not in (200, 202, 204, 404):
            raise RouterError(f"the router kept worker {url}: {answer.text[:300]}")
        self._wait(
            lambda: True if all(w["url"] != url for w in self._listing()) else None,
            f"to forget {url}",
        )

    def workers(self) -> tuple[RoutedWorker, ...]:
        """Workers that the router knows."""
        return tuple(
            RoutedWorker(
                url=str(w["url"]),
                role=_ROLES[str(w["worker_type"])],
                healthy=bool(w["is_healthy"]) and w.get("status") == "ready",
                transfers_kv=str(w.get("pd_pairing", "")).startswith("vllm/nixl"),
            )
            for w in self._listing()
        )

    def transfers(self) -> int:
        """Requests handed from prefill to decode with KV transfer so far."""
        try:
            text = self.client.get(self.metrics_url).text
        except httpx.HTTPError as error:
            raise RouterError(f"the router's metrics do not answer: {error}") from error
        return sum(
            int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "smg_pd_kv_connector_mode_total"
            and sample.labels.get("mode") == "nixl"
        )

    def stop(self) -> None:
        """End the router process."""
        self.client.close()
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _healthy(self, url: str, role: Role) -> RoutedWorker | None:
        for worker in self.workers():
            if worker.url == url and worker.role is role and worker.healthy:
                return worker
        return None

    def _listing(self) -> list[dict[str, object]]:
        answer = self._request("GET", "/workers")
        if answer.status_code != 200:
            raise RouterError(f"the router does not list its workers: {answer.text[:300]}")
        return cast("list[dict[str, object]]", answer.json()["workers"])

    def _request(self, method: str, path: str, json: object = None) -> httpx.Response:
        try:
            return self.client.request(method, path, json=json)
        except httpx.HTTPError as error:
            raise RouterError(
                f"the router does not answer ({error}); its log is {self.log_path}:\n"
                + "\n".join(f"  | {x}" for x in log_tail(self.log_path, lines=6))
            ) from error

    def _wait(self, condition: Callable[[], T | None], what: str) -> T:
        deadline = time.monotonic() + CHANGE_TIMEOUT_S
        while (value := condition()) is None:
            if time.monotonic() > deadline:
                raise RouterError(
                    f"the router took more than {CHANGE_TIMEOUT_S:.0f} s {what}; "
                    f"its log is {self.log_path}"
                )
            time.sleep(POLL_S)
        return value


def start_smg(state_dir: Path) -> SmgRouter:
    """Start an empty router on a free loopback port.

    Raises
    ------
    RouterError
        When smg is not installed or does not come up.
    """
    if find_spec("smg") is None:
        raise RouterError("the router is not installed: pip install 'poolwise[serve]' (brings smg)")
    port, metrics_port = free_ports(2)
    log_path = state_dir / "logs" / "router.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    log_path.unlink(missing_ok=True)
    line = [sys.executable, "-m", "smg", "launch", "--pd-disaggregation"]
    line += ["--host", "127.0.0.1", "--port", str(port)]
    line += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics_port)]
    line += ["--prefill-policy", "least_load", "--decode-policy", "least_load"]
    line += ["--log-level", "warn", "--disable-retries"]
    environment = {k: os.environ[k] for k in ("PATH", "HOME", "LANG") if k in os.environ}
    environment[MARKER] = str(state_dir.resolve())
    process = spawn_supervised(line, environment=environment, log_path=log_path)
    router = SmgRouter(
        url=f"http://127.0.0.1:{port}",
        metrics_url=f"http://127.0.0.1:{metrics_port}/metrics",
        log_path=log_path,
        process=process,
        client=httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=15.0),
    )
    _await_up(router)
    return router


def _await_up(router: SmgRouter) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if router.process.poll() is not None:
            break
        try:
            if router.client.get("/workers").status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(POLL_S)
    router.stop()
    raise RouterError(
        "the router did not start; its last log lines:\n"
        + "\n".join(f"  | {x}" for x in log_tail(router.log_path))
    )
