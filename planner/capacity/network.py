"""Links that the KV transfers of a deployment share: how long one takes, and how many fit.

A transfer alone moves at the flow rate f of its link class; a link of bandwidth L carries L / f of
them at full speed, and beyond that they share it equally. That is generalized processor sharing
with c = L / f servers: the number on the link is distributed as in M/M/c whatever the sizes
(insensitivity), so by Little's law a transfer of x bytes takes on average

    x / f * (1 + C(c, a) / (c - a)),   a = arrivals/s x mean bytes / f,

with C the Erlang probability of waiting.

References
----------
Cohen, "The multiple phase service network with generalized processor sharing", Acta Informatica 12
(1979); Kelly, *Reversibility and Stochastic Networks* (1979), 3.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.capacity.queueing import HIGHEST_STATIONARY_RATIO, backlog_of, erlang_c
from planner.domain.topology import (
    Distance,
    LinkClass,
    Place,
    Topology,
    distance_between,
)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Equal links side by side that every transfer over some distances has to pass.

    Parameters
    ----------
    distances : frozenset of Distance
        Whose transfers pass.
    links : int
        How many there are; traffic is taken to spread over them evenly.
    link_bytes_per_s : float
        Of one.
    """

    distances: frozenset[Distance]
    links: int
    link_bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What lies between the prefill and the decode replicas of a deployment.

    Parameters
    ----------
    share : dict of Distance to float
        Of all transfers; sums to 1.
    links : dict of Distance to LinkClass
    stages : tuple of Stage
    """

    share: dict[Distance, float]
    links: dict[Distance, LinkClass]
    stages: tuple[Stage, ...]

    def saturation_rps(self, kv_bytes: float) -> float:
        """Transfers/s of `kv_bytes` each at which the first link is always busy; inf without."""
        most = max((self._stage_s(stage, kv_bytes) for stage in self.stages), default=0.0)
        return 1 / most if most > 0 else float("inf")

    def moving(self, kv_bytes: Floats, mean_bytes: float, rate_rps: float) -> Floats:
        """(buckets,) mean seconds of a transfer of `kv_bytes` at `rate_rps` transfers/s.

        Parameters
        ----------
        kv_bytes : (buckets,) float
        mean_bytes : float
            Of all transfers.
        """
        seconds = np.zeros_like(kv_bytes)
        for distance, share in self.share.items():
            link = self.links[distance]
            flow = min(link.flow_bytes_per_s, link.link_bytes_per_s)
            slower = max(
                self._slowdown(stage, flow, mean_bytes, rate_rps)
                for stage in self.stages
                if distance in stage.distances
            )
            seconds = seconds + share * (link.base_s + kv_bytes / flow * slower)
        return seconds

    def backlog_s(self, mean_bytes: float, rate_rps: float, window_s: float) -> float:
        """Wait that an overloaded link builds up over a window, seconds."""
        return backlog_of(rate_rps / self.saturation_rps(mean_bytes), window_s)

    def _stage_s(self, stage: Stage, kv_bytes: float) -> float:
        """Seconds that one link of a stage is busy for every transfer of the deployment."""
        passing = sum(self.share.get(d, 0.0) for d in stage.distances)
        return passing * kv_bytes / (stage.links * stage.link_bytes_per_s)

    def _slowdown(self, stage: Stage, flow: float, mean_bytes: float, rate_rps: float) -> float:
        servers = max(stage.link_bytes_per_s / flow, 1.0)
        ratio = min(rate_rps * self._stage_s(stage, mean_bytes), HIGHEST_STATIONARY_RATIO)
        return 1 + erlang_c(servers, ratio * servers) / (servers * (1 - ratio))


def network_between(
    topology: Topology, senders: Sequence[Place], receivers: Sequence[Place]
) -> Network:
    """Build the network of a deployment whose transfers go from any sender to any receiver.

    Parameters
    ----------
    senders, receivers : sequence of Place
        Where the prefill and the decode replicas stand; at least one each.

    Raises
    ------
    ValueError
        When there is no sender or no receiver.
    """
    if not senders or not receivers:
        raise ValueError("a network needs a prefill and a decode replica")
    pairs = [distance_between(a, b) for a in senders for b in receivers]
    share = {d: pairs.count(d) / len(pairs) for d in Distance if d in pairs}
    bandwidth = {d: link.link_bytes_per_s for d, link in topology.links.items()}
    far = frozenset({Distance.SAME_RACK, Distance.CROSS_RACK})

    def stage(distances: frozenset[Distance], nearest: Distance, links: int) -> Stage:
        return Stage(distances=distances, links=links, link_bytes_per_s=bandwidth[nearest])

    stages = []
    for ends in (senders, receivers):
        nodes, racks = len({p.node for p in ends}), len({p.rack for p in ends})
        stages.append(stage(far, Distance.SAME_RACK, nodes))
        stages.append(stage(frozenset({Distance.CROSS_RACK}), Distance.CROSS_RACK, racks))
    inside = {p.node for p in senders} & {p.node for p in receivers}
    if inside:
        stages.append(stage(frozenset({Distance.SAME_NODE}), Distance.SAME_NODE, len(inside)))
    used = tuple(s for s in stages if any(share.get(d, 0.0) > 0 for d in s.distances))
    return Network(share=share, links=topology.links, stages=used)
