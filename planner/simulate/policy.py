"""What steers the fleet while the twin runs, and what it may see: no more than a real observer."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """One group at a tick, as its replicas' metrics would tell.

    Parameters
    ----------
    ready, starting, draining : int
        Replicas.
    waiting_requests, running_requests : int
    queued_prompt_tokens : int
        Prompt tokens of requests in line here.
    kv_usage_ratio : float
        Mean over ready replicas, 0..1.
    """

    ready: int
    starting: int
    draining: int
    waiting_requests: int
    running_requests: int
    queued_prompt_tokens: int
    kv_usage_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """What can be seen at a tick; columns cover the time since the tick before.

    Parameters
    ----------
    t_s, since_s : float
        Now, and the instant of the tick before.
    groups : tuple of GroupView
    arrived_input_tokens : (arrived,) int
        Prompt lengths of the requests that arrived.
    finished_input_tokens, finished_output_tokens : (finished,) int
    finished_ttft_s, finished_tpot_s : (finished,) float
        NaN in `finished_tpot_s`: one output token.
    """

    t_s: float
    since_s: float
    groups: tuple[GroupView, ...]
    arrived_input_tokens: Integers
    finished_input_tokens: Integers
    finished_output_tokens: Integers
    finished_ttft_s: Floats
    finished_tpot_s: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """Ready replicas that shall change from one group to another."""

    from_group: int
    to_group: int
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What the policy wants.

    Parameters
    ----------
    replicas : tuple of int or None
        Per group, ready and starting together; None leaves all as they are. More than the
        group's room is cut to it. Surplus replicas drain, starting ones first, then those with
        the fewest requests.
    flips : tuple of Flip
        Done before the counts are brought to `replicas`.
    next_tick_s : float
        When to ask again, seconds from the start; inf never.
    """

    replicas: tuple[int, ...] | None
    next_tick_s: float
    flips: tuple[Flip, ...] = ()


class Policy(Protocol):
    """Anything that steers."""

    @property
    def first_tick_s(self) -> float:
        """When to ask first, seconds from the start."""

    def on_tick(self, seen: Observation) -> Targets:
        """The replicas there should be from now on."""
