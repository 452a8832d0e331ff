"""Routers are libraries: this package starts one and speaks to it through one port."""

from pathlib import Path

from planner.domain.errors import RouterError
from serving.routers.policies import USUAL, Policies
from serving.routers.port import RoutedWorker, Router, RouterKind

__all__ = ["RoutedWorker", "Router", "RouterKind", "start_router"]


def start_router(
    kind: RouterKind,
    state_dir: Path,
    *,
    name: str = "router",
    port: int | None = None,
    mixed: bool = False,
    policies: Policies = USUAL,
) -> Router:
    """Start an empty router of a kind.

    Parameters
    ----------
    name : str
        For its log; one of its own for every cell.
    port : int or None
        Loopback port of its API; None: any free one.
    mixed : bool
        Aggregated workers may stand beside prefill and decode workers; smg only.
    policies : Policies
        How it chooses workers; vllm-router knows its own only.

    Raises
    ------
    RouterError
        When it is not installed or does not come up.
    NoFreePortError
        When the port is taken.
    """
    if kind is RouterKind.SMG:
        from serving.routers.smg import start_smg

        return start_smg(state_dir, name=name, port=port, mixed=mixed, policies=policies)
    if policies != USUAL:
        raise RouterError("vllm-router chooses by its own policy: take smg to choose another")
    if mixed:
        raise RouterError(
            "vllm-router sends nothing to aggregated workers beside prefill and decode ones: take "
            "smg, or only one of the two kinds"
        )
    from serving.routers.vllm_router import start_vllm_router

    return start_vllm_router(state_dir, name=name, port=port)
