"""Parts of the reference: prompt seconds, who can hold what, and shared links."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from planner.domain.fleet import Role
from planner.domain.profile import Profile
from planner.simulate import Distance, RouterPolicy, Scenario

if TYPE_CHECKING:
    from tests.planner.simulate.reference import Worker


def prompt_s(profile: Profile, new: float, cached: float) -> float:
    """P(new, cached): the table with its first segment continued to 0 new tokens."""
    table = profile.prefill
    by_cached = []
    for j in range(len(table.y)):
        xs, ys = list(table.x), list(table.seconds[:, j])
        if len(xs) == 1:
            xs, ys = [0.0, max(xs[0], 1.0)], [0.0, ys[0]]
        elif xs[0] > 0:
            slope = (ys[1] - ys[0]) / (xs[1] - xs[0])
            xs, ys = [0.0, *xs], [min(max(ys[0] - slope * xs[0], 0.0), ys[0]), *ys]
        by_cached.append(_along(xs, ys, new))
    if len(table.y) == 1:
        return max(by_cached[0], 0.0)
    return max(_along(list(table.y), by_cached, max(cached, float(table.y[0]))), 0.0)


def _along(xs: list[float], ys: list[float], x: float) -> float:
    """Piecewise linear, the last segment continued."""
    i = 0
    while i < len(xs) - 2 and xs[i + 1] <= x:
        i += 1
    return ys[i] + (ys[i + 1] - ys[i]) * (x - xs[i]) / (xs[i + 1] - xs[i])


def can_hold(scenario: Scenario, g: int, i: int) -> bool:
    """Whether a group can hold a request and its router sends it there."""
    those = [h for h in _side(scenario, g) if _has_space(scenario, h, i)]
    if g not in those:
        return False
    if scenario.router is not RouterPolicy.BY_LENGTH:
        return True
    new = max(int(scenario.workload.input_tokens[i] - scenario.workload.cached_tokens[i]), 1)
    bounds = {h: scenario.groups[h].longest_prompt_tokens or math.inf for h in those}
    holding = {h: bound for h, bound in bounds.items() if new <= bound}
    return g in holding and holding[g] == min(holding.values())


def _side(scenario: Scenario, g: int) -> list[int]:
    """The groups that compete with this one: for prompts, or for answers."""
    decodes = scenario.groups[g].role is Role.DECODE
    return [h for h, group in enumerate(scenario.groups) if (group.role is Role.DECODE) == decodes]


def _has_space(scenario: Scenario, g: int, i: int) -> bool:
    group = scenario.groups[g]
    limits = group.profile.limits
    prefix = scenario.workload.prefix if scenario.prefix_cache else None
    size = limits.kv_block_tokens
    if prefix is not None:
        size = math.gcd(size, prefix.block_tokens)
    answer = 1 if group.role is Role.PREFILL else int(scenario.workload.output_tokens[i])
    tokens = int(scenario.workload.input_tokens[i]) + answer
    fits = -(-tokens // size) <= limits.kv_capacity_tokens // size
    if group.room == 0 or not fits or tokens > limits.max_model_len:
        return False
    if group.role is not Role.PREFILL:
        return True
    decoders = [h for h, other in enumerate(scenario.groups) if other.role is Role.DECODE]
    return any(_has_space(scenario, h, i) for h in decoders)


def relative_speeds(scenario: Scenario) -> list[float]:
    """Inverse of the fullest step (at the shortest measured context), the fastest group's 1."""
    fullest = []
    for group in scenario.groups:
        table, most = group.profile.decode_step, group.profile.limits.max_num_seqs
        fullest.append(float(table.extended_at(most, table.y[0])))
    return [min(fullest) / s for s in fullest]


@dataclass(eq=False)
class Flow:
    """A transfer on shared links."""

    request: int
    left_bytes: float
    links: list[str] = field(default_factory=list)
    base_s: float = 0.0
    most: float = 0.0
    rate: float = 0.0


class Network:
    """Flows on shared links: all rates rise together until a link is full or a flow has enough."""

    def __init__(self, scenario: Scenario, workers: "list[Worker]") -> None:
        self.topology = scenario.topology
        places = [p for g in scenario.groups for p in (g.places or (None,) * g.room)]
        self.place = {
            w.number: (p.rack, p.node) if p is not None else (0, 0)
            for w, p in zip(workers, places, strict=True)
        }
        self.flows: list[Flow] = []
        self.at_s = 0.0

    def distance(self, a: "Worker", b: "Worker") -> int:
        """0 same node, 1 same rack, 2 another rack."""
        (rack, node), (other_rack, other_node) = self.place[a.number], self.place[b.number]
        if rack != other_rack:
            return 2
        return 0 if node == other_node else 1

    def begin(self, flow: Flow, source: "Worker", to: "Worker", now_s: float) -> None:
        """Put a flow on its links."""
        assert self.topology is not None
        self._settle(now_s)
        distance = list(Distance)[self.distance(source, to)]
        link = self.topology.links[distance]
        (rack, node), (to_rack, to_node) = self.place[source.number], self.place[to.number]
        flow.base_s, flow.most = link.base_s, link.flow_bytes_per_s
        flow.links = [f"out {node}", f"into {to_node}"]
        if distance is Distance.SAME_NODE:
            flow.links = [f"within {node}"]
        if distance is Distance.CROSS_RACK:
            flow.links += [f"up {rack}", f"down {to_rack}"]
        self.flows.append(flow)
        self._share()

    def _bandwidth(self, link: str) -> float:
        assert self.topology is not None
        distance = {
            "out": Distance.SAME_RACK, "into": Distance.SAME_RACK, "within": Distance.SAME_NODE,
            "up": Distance.CROSS_RACK, "down": Distance.CROSS_RACK,
        }[link.split(maxsplit=1)[0]]  # fmt: skip
        return self.topology.links[distance].link_bytes_per_s

    def _settle(self, now_s: float) -> None:
        for flow in self.flows:
            flow.left_bytes -= flow.rate * (now_s - self.at_s)
        self.at_s = now_s

    def _share(self) -> None:
        rising = list(self.flows)
        for flow in rising:
            flow.rate = 0.0
        while rising:
            rooms = {x: self._room(x, rising) for flow in rising for x in flow.links}
            rise = min(*rooms.values(), *(flow.most - flow.rate for flow in rising))
            for flow in rising:
                flow.rate += rise
            full = {x for x, room in rooms.items() if room <= rise * (1 + 1e-9)}
            rising = [
                flow
                for flow in rising
                if flow.rate < flow.most * (1 - 1e-9) and not full.intersection(flow.links)
            ]

    def _room(self, link: str, rising: list[Flow]) -> float:
        """How much every rising flow of a link can still get of it."""
        taken = sum(flow.rate for flow in self.flows if link in flow.links)
        return (self._bandwidth(link) - taken) / sum(link in flow.links for flow in rising)

    @property
    def next_end_s(self) -> float:
        """When the first flow ends."""
        ends = [self.at_s + max(f.left_bytes, 0.0) / f.rate for f in self.flows]
        return min(ends, default=math.inf)

    def end(self, now_s: float) -> list[Flow]:
        """Take off the flows that have nothing left."""
        self._settle(now_s)
        done = [f for f in self.flows if f.left_bytes <= (1e-9 + 1e-15 * now_s) * f.rate]
        self.flows = [f for f in self.flows if f not in done]
        self._share()
        return done

    def stop(self, request: int, now_s: float) -> None:
        """Take off a request's flow, if it has one."""
        if any(f.request == request for f in self.flows):
            self._settle(now_s)
            self.flows = [f for f in self.flows if f.request != request]
            self._share()


def agree(ours: np.ndarray, theirs: np.ndarray, *, within: float = 1e-6) -> bool:
    """Whether two columns are the same, NaN where the other is."""
    return bool(np.allclose(ours, theirs, rtol=0, atol=within, equal_nan=True))
