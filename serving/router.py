"""The P/D router as Poolwise sees it: a place where workers are added and removed."""

from dataclasses import dataclass
from typing import Protocol

from planner.domain.fleet import Role


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

    def add(self, url: str, role: Role) -> None:
        """Register a worker and wait until the router uses it.

        Raises RouterError when it is refused, or paired without KV transfer.
        """

    def remove(self, url: str) -> None:
        """Take a worker out of the rotation; returns when the router has forgotten it."""

    def workers(self) -> tuple[RoutedWorker, ...]:
        """Workers that the router knows."""

    def transfers(self) -> int:
        """Requests handed from prefill to decode with KV transfer so far."""

    def stop(self) -> None:
        """End the router process."""
