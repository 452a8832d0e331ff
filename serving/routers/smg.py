"""Adapter for smg (PyPI `smg`), the default P/D router: HTTP relay of NIXL transfer handles."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from planner.domain.errors import RouterError
from planner.domain.fleet import Role
from serving.routers.policies import USUAL, Policies
from serving.routers.port import RoutedWorker
from serving.routers.process import RETRY_OPTIONS, OwnRouter, start_process
from serving.workers.engine import NIXL

_LABELS = {"kv_connector": NIXL, "kv_role": "kv_both"}
_ROLES = {"prefill": Role.PREFILL, "decode": Role.DECODE, "regular": Role.AGGREGATED}
_WORKER_TYPES = {role: name for name, role in _ROLES.items()}


@dataclass(frozen=True, slots=True)
class SmgRouter(OwnRouter):
    """A running smg process."""

    def add(self, url: str, role: Role) -> None:
        """Register a worker and wait until the router uses it."""
        self.running.check_worker(url, role)
        body = {
            "url": url,
            "worker_type": _WORKER_TYPES[role],
            "runtime_type": "vllm",
            "connection_mode": "http",
            "labels": _LABELS,
        }
        answer = self.running.request("POST", "/workers", json=body)
        if answer.status_code not in (200, 201, 202):
            raise RouterError(
                f"the router refused worker {url} as {role} (HTTP {answer.status_code}): "
                f"{answer.text[:300]}"
            )
        try:
            found = self.running.wait(
                lambda: self._healthy(url, role), f"to take in {url} as {role}"
            )
        except RouterError:
            self._forget(url)
            raise
        if role is not Role.AGGREGATED and not found.transfers_kv:
            self._forget(url)
            raise RouterError(
                f"the router paired {url} without KV transfer, so decode would compute every "
                "prompt again; the worker was taken out (is it started with NixlConnector?)"
            )

    def remove(self, url: str) -> None:
        """Take a worker out of the rotation."""
        ids = [w["id"] for w in self._listing() if w["url"] == url]
        if not ids:
            return
        answer = self.running.request("DELETE", f"/workers/{ids[0]}")
        if answer.status_code not in (200, 202, 204, 404):
            raise RouterError(f"the router kept worker {url}: {answer.text[:300]}")

    def wait_drained(self, url: str) -> None:
        """Wait until the router has forgotten a removed worker, a fixed time after."""
        self.running.wait(
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
        return self.running.metric_total("smg_pd_kv_connector_mode_total", mode="nixl")

    def stop(self) -> None:
        """End the router process."""
        self.running.stop()

    def _forget(self, url: str) -> None:
        self.remove(url)
        self.wait_drained(url)

    def _healthy(self, url: str, role: Role) -> RoutedWorker | None:
        for worker in self.workers():
            if worker.url == url and worker.role is role and worker.healthy:
                return worker
        return None

    def _listing(self) -> list[dict[str, object]]:
        answer = self.running.request("GET", "/workers")
        if answer.status_code != 200:
            raise RouterError(f"the router does not list its workers: {answer.text[:300]}")
        return cast("list[dict[str, object]]", answer.json()["workers"])


def start_smg(
    state_dir: Path,
    *,
    name: str = "router",
    port: int | None = None,
    mixed: bool = False,
    policies: Policies = USUAL,
) -> SmgRouter:
    """Start an empty router.

    Parameters
    ----------
    name : str
        For its log.
    port : int or None
        Loopback port of its API; None: any free one.
    mixed : bool
        Aggregated workers may stand beside prefill and decode workers.

    Raises
    ------
    RouterError
        When smg is not installed or does not come up.
    NoFreePortError
        When the port is taken.
    """

    def line(api_port: int, metrics_port: int) -> list[str]:
        return [
            *("smg", "launch", "--enable-igw" if mixed else "--pd-disaggregation"),
            *("--host", "127.0.0.1", "--port", str(api_port)),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics_port)),
            *policies.options,
            *("--log-level", "warn", "--shutdown-grace-period-secs", "2"),
            *RETRY_OPTIONS,
        ]

    return SmgRouter(start_process(name, "smg", line, state_dir=state_dir, port=port))
