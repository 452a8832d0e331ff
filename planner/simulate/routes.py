"""Requests sent to pools by given shares: what a router does that can tell them apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from planner.domain.fleet import Role
from planner.domain.workload import Flags, RequestKind, Workload

if TYPE_CHECKING:
    from planner.simulate.scenario import ReplicaGroup

SIDES = ((Role.PREFILL, Role.AGGREGATED), (Role.DECODE,))
"""Who computes prompts, and who writes the answers of those that were prefilled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(RequestKind):
    """Where requests of a kind go.

    Parameters
    ----------
    shares : (groups,) tuple of float
        How much of their prompts a prefill or aggregated group gets, and of their answers a decode
        group; relative to the others of its side.
    """

    shares: tuple[float, ...]


def allowed_groups(
    routes: Sequence[Route], groups: Sequence["ReplicaGroup"], workload: Workload, *, seed: int
) -> Flags:
    """(groups, requests) where the router may send each request.

    For every request one group of each side is drawn by its route's shares; those that no route is
    for may go anywhere, those whose route has no share on a side nowhere.
    """
    rng = np.random.default_rng([seed, len(workload)])
    allowed = np.ones((len(groups), len(workload)), dtype=np.bool_)
    for route in routes:
        own = np.flatnonzero(route.covers(workload))
        allowed[:, own] = False
        for roles in SIDES:
            side = [g for g, group in enumerate(groups) if group.role in roles]
            shares = np.array([route.shares[g] for g in side])
            if len(own) and shares.sum() > 0:
                drawn = rng.choice(np.array(side), size=len(own), p=shares / shares.sum())
                allowed[drawn, own] = True
    return allowed
