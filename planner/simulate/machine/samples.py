"""How every group stands, now and then: the series that plots are drawn from.

A run may last far longer than its arrivals. When all rows are taken, every second one is dropped
and the interval doubled.
"""

from planner.simulate.machine.compiled import compiled
from planner.simulate.state import SERVING, Twin


@compiled
def sample_before(twin: Twin, t: float) -> None:
    """Take the sample that is due before t, the next instant at which anything happens."""
    clock = twin.clock[0]
    if clock.sample_s < t:
        if clock.samples == len(twin.sampled_s):
            thin_out(twin)
        sample(twin, clock.samples, clock.sample_s)
        clock.samples += 1
        clock.sample_s = max(clock.sample_s + clock.sample_every_s, t)


@compiled
def sample(twin: Twin, i: int, t: float) -> None:
    """Write row i: per group ready workers, requests in line, in batches, mean share of KV."""
    twin.sampled_s[i] = t
    groups, rows = len(twin.groups), twin.sampled
    for g in range(groups):
        for k in range(4):
            rows[i, g, k] = 0.0
    for w in range(len(twin.workers)):
        worker = twin.workers[w]
        g = worker.group
        rows[i, g, 1] += worker.waiting
        rows[i, g, 2] += worker.running
        if worker.state == SERVING and worker.ready_s <= t:
            rows[i, g, 0] += 1
            rows[i, g, 3] += worker.kv_used / twin.groups[g].kv_blocks
    for g in range(groups):
        rows[i, g, 3] /= max(rows[i, g, 0], 1.0)


@compiled
def thin_out(twin: Twin) -> None:
    """Keep every second row."""
    clock = twin.clock[0]
    kept = (clock.samples + 1) // 2
    for i in range(kept):
        twin.sampled_s[i] = twin.sampled_s[2 * i]
        for g in range(len(twin.groups)):
            for k in range(4):
                twin.sampled[i, g, k] = twin.sampled[2 * i, g, k]
    clock.samples = kept
    clock.sample_every_s *= 2
