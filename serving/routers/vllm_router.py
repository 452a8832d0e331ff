"""Adapter for vllm-router (PyPI `vllm-router`) in its gateway mode, which starts empty.

Measured with 0.1.17: it takes in workers that do not answer and calls them healthy, it gives a
known worker another role in place and without a word, it removes at once, and it does not say
whether KV caches move. So the adapter asks the worker itself before it adds it, and removes
before it adds again.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import quote

from planner.domain.errors import RouterError
from planner.domain.fleet import Role
from serving.routers.port import RoutedWorker
from serving.routers.process import RETRY_OPTIONS, OwnRouter, start_process

HEALTH_INTERVAL_S = 2
"""Between checks; its default of a minute leaves dead workers in the rotation as long."""
_ROLES = {"prefill": Role.PREFILL, "decode": Role.DECODE, "regular": Role.AGGREGATED}
_WORKER_TYPES = {role: name for name, role in _ROLES.items()}


@dataclass(frozen=True, slots=True)
class VllmRouter(OwnRouter):
    """A running vllm-router process."""

    def add(self, url: str, role: Role) -> None:
        """Register a worker and wait until the router uses it."""
        self.running.check_worker(url, role)
        if any(w.url == url for w in self.workers()):
            raise RouterError(
                f"the router refused worker {url} as {role}: it is known already, remove it first"
            )
        body = {"url": url, "worker_type": _WORKER_TYPES[role]}
        answer = self.running.request("POST", "/workers", json=body)
        if answer.status_code not in (200, 201, 202):
            raise RouterError(
                f"the router refused worker {url} as {role} (HTTP {answer.status_code}): "
                f"{answer.text[:300]}"
            )
        try:
            self.running.wait(lambda: self._healthy(url, role), f"to take in {url} as {role}")
        except RouterError:
            self.remove(url)
            raise

    def remove(self, url: str) -> None:
        """Take a worker out of the rotation."""
        if all(w.url != url for w in self.workers()):
            return
        answer = self.running.request("DELETE", f"/workers/{quote(url, safe='')}")
        if answer.status_code not in (200, 202, 204, 404):
            raise RouterError(f"the router kept worker {url}: {answer.text[:300]}")

    def wait_drained(self, url: str) -> None:
        """Wait until the router has forgotten a removed worker, which is at once."""
        self.running.wait(
            lambda: True if all(w.url != url for w in self.workers()) else None, f"to forget {url}"
        )

    def workers(self) -> tuple[RoutedWorker, ...]:
        """Workers that the router knows; that they transfer was checked before they were added."""
        answer = self.running.request("GET", "/workers")
        if answer.status_code != 200:
            raise RouterError(f"the router does not list its workers: {answer.text[:300]}")
        listing = cast("list[dict[str, object]]", answer.json()["workers"])
        return tuple(
            RoutedWorker(
                url=str(w["url"]),
                role=_ROLES[str(w["worker_type"])],
                healthy=bool(w["is_healthy"]),
                transfers_kv=str(w["worker_type"]) != "regular",
            )
            for w in listing
        )

    def transfers(self) -> int:
        """Requests handed from prefill to decode so far."""
        return self.running.metric_total("vllm_router_pd_decode_requests_total")

    def stop(self) -> None:
        """End the router process."""
        self.running.stop()

    def _healthy(self, url: str, role: Role) -> RoutedWorker | None:
        for worker in self.workers():
            if worker.url == url and worker.role is role and worker.healthy:
                return worker
        return None


def start_vllm_router(
    state_dir: Path, *, name: str = "router", port: int | None = None
) -> VllmRouter:
    """Start an empty router.

    Parameters
    ----------
    name : str
        For its log.
    port : int or None
        Loopback port of its API; None: any free one.

    Raises
    ------
    RouterError
        When vllm-router is not installed or does not come up.
    NoFreePortError
        When the port is taken.
    """

    def line(api_port: int, metrics_port: int) -> list[str]:
        return [
            *("vllm_router.launch_router", "--enable-igw"),
            *("--host", "127.0.0.1", "--port", str(api_port)),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics_port)),
            *("--policy", "power_of_two", "--log-level", "warning"),
            *RETRY_OPTIONS,
            *("--health-check-interval-secs", str(HEALTH_INTERVAL_S)),
        ]

    package = "vllm_router"
    return VllmRouter(start_process(name, package, line, state_dir=state_dir, port=port))
