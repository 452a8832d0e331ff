"""The P/D router as Poolwise sees it: a place where workers are added and removed."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from planner.domain.fleet import Role


class RouterKind(StrEnum):
    """Routers that there is an adapter for."""

    SMG = "smg"
    VLLM_ROUTER = "vllm-router"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedWorker:
    """A worker as the router lists it.

    Parameters
    ----------
    healthy : bool
        Whether the router sends it requests.
    transfers_kv : bool
        Whether the router pairs it for KV transfer; without, decode recomputes every prompt.
    """

    url: str
    role: Role
    healthy: bool
    transfers_kv: bool


class Router(Protocol):
    """Port to a router process. One instance belongs to one router."""

    @property
    def url(self) -> str:
        """Base URL of its OpenAI-compatible API."""

    @property
    def metrics_url(self) -> str:
        """Its metrics page."""

    @property
    def pid(self) -> int:
        """Process that the router's process hangs below."""

    def is_alive(self) -> bool:
        """Whether its process runs."""

    def add(self, url: str, role: Role) -> None:
        """Register a worker and wait until the router uses it.

        Raises RouterError when the worker does not answer, when it is known already, when it
        could not hand its KV cache over, or when the router refuses it; the router then is as it
        was before.
        """

    def remove(self, url: str) -> None:
        """Take a worker out of the rotation; nothing happens when it is not known.

        Requests that it works on go on; `wait_drained` waits for them.
        """

    def wait_drained(self, url: str) -> None:
        """Wait until the router has forgotten a removed worker.

        That is no proof of an idle worker: smg lets a fixed time pass, vllm-router none. Whoever
        ends a worker also waits until its own running and waiting requests are 0
        (`serving.routers.drained.wait_idle`).
        """

    def workers(self) -> tuple[RoutedWorker, ...]:
        """Workers that the router knows."""

    def transfers(self) -> int:
        """Requests handed from prefill to decode with KV transfer so far."""

    def stop(self) -> None:
        """End the router process."""

    def kill(self) -> None:
        """Kill a router that hangs; it then counts as one that ended by itself."""
