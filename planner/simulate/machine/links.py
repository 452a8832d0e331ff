"""KV caches on their way from prefill to decode workers.

Without a topology every transfer has a path of its own and its end is known when it begins. With
one, transfers share links: whenever one begins or ends, all rates are set anew.
"""

import numpy as np

from planner.simulate.machine.compiled import compiled, compiled_into_caller
from planner.simulate.machine.heaps import lift
from planner.simulate.state import CROSS_RACK, NOBODY, SAME_NODE, SAME_RACK, Twin

UNSET = -1.0
SPACING_RATIO = 1e-15
"""Four times the distance between two neighbouring floats, over the float."""


@compiled
def distance_of(twin: Twin, a: int, b: int) -> int:
    """How far two workers are apart."""
    worker_a = twin.workers[a]
    worker_b = twin.workers[b]
    if worker_a.rack != worker_b.rack:
        return CROSS_RACK
    return SAME_NODE if worker_a.node == worker_b.node else SAME_RACK


@compiled_into_caller
def begin_transfer(twin: Twin, w: int, r: int, kv_bytes: float, t: float) -> None:
    """Start to pull a request's KV cache into worker w."""
    worker = twin.workers[w]
    record = twin.records[r]
    clock = twin.clock[0]
    group = twin.groups[worker.group]
    if len(twin.link_bytes_per_s) == 0:
        arrives_s = t + group.transfer_base_s + kv_bytes / group.transfer_bytes_per_s
        lift(twin.moving, 0, clock.moving, arrives_s, r)
        clock.moving += 1
        return
    settle_flows(twin, t)
    source = record.source
    holder = twin.workers[source]
    # Links: per node out, in, within; then per rack out, in.
    nodes, racks = clock.nodes, clock.racks
    distance = distance_of(twin, source, w)
    i = clock.flows
    flow = twin.flows[i]
    clock.flows += 1
    flow.request = r
    flow.left_bytes = kv_bytes
    flow.distance = distance
    flow.up = flow.down = NOBODY
    if distance == SAME_NODE:
        flow.out = 2 * nodes + worker.node
        flow.into = NOBODY
    else:
        flow.out = holder.node
        flow.into = nodes + worker.node
        if distance == CROSS_RACK:
            flow.up = 3 * nodes + holder.rack
            flow.down = 3 * nodes + racks + worker.rack
    count_flow(twin, i, 1)
    share_links(twin)


@compiled
def count_flow(twin: Twin, i: int, by: int) -> None:
    """Count a flow on, or off, its links."""
    flow = twin.flows[i]
    for link in (flow.out, flow.into, flow.up, flow.down):
        if link != NOBODY:
            twin.link_flows[link] += by


@compiled
def settle_flows(twin: Twin, t: float) -> None:
    """Bring the bytes left of every flow to instant t."""
    clock = twin.clock[0]
    for i in range(clock.flows):
        flow = twin.flows[i]
        flow.left_bytes -= flow.rate * (t - clock.flowed_s)
    clock.flowed_s = t


@compiled
def fair_share(twin: Twin, i: int) -> float:
    """The most that a flow without a rate can get now: its own limit, or a part of a link."""
    flow = twin.flows[i]
    share = twin.distance_flow_bytes_per_s[flow.distance]
    for link in (flow.out, flow.into, flow.up, flow.down):
        if link != NOBODY:
            share = min(share, twin.link_left[link] / twin.link_open[link])
    return float(share)


@compiled
def give_rate(twin: Twin, i: int, rate: float) -> None:
    """Set a flow's rate and take it off its links' bandwidth."""
    flow = twin.flows[i]
    flow.rate = rate
    for link in (flow.out, flow.into, flow.up, flow.down):
        if link != NOBODY:
            twin.link_left[link] = max(twin.link_left[link] - rate, 0.0)
            twin.link_open[link] -= 1


@compiled
def share_links(twin: Twin) -> None:
    """Set every flow's rate, max-min fair, and when the first of them ends.

    Who can get least gets it first; what that leaves of the links is shared by the others
    (Bertsekas and Gallager, *Data Networks* (1992), 6.5.2).
    """
    clock = twin.clock[0]
    count = clock.flows
    for link in range(len(twin.link_left)):
        twin.link_left[link] = twin.link_bytes_per_s[link]
        twin.link_open[link] = twin.link_flows[link]
    for i in range(count):
        twin.flows[i].rate = UNSET
    without = count
    while without > 0:
        least = np.inf
        for i in range(count):
            if twin.flows[i].rate == UNSET:
                least = min(least, fair_share(twin, i))
        for i in range(count):
            if twin.flows[i].rate == UNSET and fair_share(twin, i) <= least * (1 + 1e-12):
                give_rate(twin, i, least)
                without -= 1
    clock.flow_end_s = np.inf
    for i in range(count):
        flow = twin.flows[i]
        ends_s = clock.flowed_s + max(flow.left_bytes, 0.0) / flow.rate
        clock.flow_end_s = min(clock.flow_end_s, ends_s)


@compiled
def drop_flow(twin: Twin, i: int) -> None:
    """Take a flow off its links."""
    clock = twin.clock[0]
    count_flow(twin, i, -1)
    last = clock.flows - 1
    flow, moved = twin.flows[i], twin.flows[last]
    flow.request, flow.left_bytes, flow.rate = moved.request, moved.left_bytes, moved.rate
    flow.out, flow.into, flow.up, flow.down = moved.out, moved.into, moved.up, moved.down
    flow.distance = moved.distance
    clock.flows = last


@compiled
def flow_of(twin: Twin, r: int) -> int:
    """Where a request's transfer is among the flows, or -1."""
    for i in range(twin.clock[0].flows):
        if twin.flows[i].request == r:
            return i
    return -1


@compiled_into_caller
def end_flows(twin: Twin) -> None:
    """At `flow_end_s`: flows with no byte left arrive `base_s` later."""
    clock = twin.clock[0]
    t = clock.flow_end_s
    settle_flows(twin, t)
    tolerance_s = 1e-9 + SPACING_RATIO * t  # late in a run instants lie further apart
    i = 0
    while i < clock.flows:
        flow = twin.flows[i]
        if flow.left_bytes > tolerance_s * flow.rate:
            i += 1
            continue
        arrives_s = t + twin.distance_base_s[flow.distance]
        lift(twin.moving, 0, clock.moving, arrives_s, flow.request)
        clock.moving += 1
        drop_flow(twin, i)
    share_links(twin)
