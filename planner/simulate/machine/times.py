"""How long a step takes, by the profiles' tables; and the histogram of gaps between tokens."""

import math

from planner.simulate.machine.compiled import compiled
from planner.simulate.state import GAP_BINS, GAP_RATIO, GAP_SHORTEST_S, Twin


@compiled
def prompt_seconds(twin: Twin, g: int, new: float, cached: float) -> float:
    """Seconds of a prompt with `new` tokens to compute; the table's first row is for none."""
    group = twin.groups[g]
    nx, ny = group.news, group.cacheds
    i = 0
    while i < nx - 2 and twin.new[g, i + 1] <= new:
        i += 1
    u = (new - twin.new[g, i]) / (twin.new[g, i + 1] - twin.new[g, i])
    table = twin.prompt_s[g]
    low = table[i, 0] * (1.0 - u) + table[i + 1, 0] * u
    if ny > 1:
        axis = twin.cached[g]
        j = 0
        while j < ny - 2 and axis[j + 1] <= cached:
            j += 1
        v = max((cached - axis[j]) / (axis[j + 1] - axis[j]), 0.0)
        low = table[i, j] * (1.0 - u) + table[i + 1, j] * u
        high = table[i, j + 1] * (1.0 - u) + table[i + 1, j + 1] * u
        low = low * (1.0 - v) + high * v
    return float(max(low, 0.0))


@compiled
def context_segment(twin: Twin, g: int, context: float) -> int:
    """The segment of the context axis that a context lies in."""
    group = twin.groups[g]
    axis, j = twin.context[g], 0
    while j < group.contexts - 2 and axis[j + 1] <= context:
        j += 1
    return j


@compiled
def decode_seconds(twin: Twin, g: int, batch: int, context: float) -> float:
    """Step time: the batch's row, linear in context, as `TimeTable.extended_at`."""
    group = twin.groups[g]
    row = twin.decode_s[g, batch]
    if group.contexts == 1:
        return float(max(row[0], group.shortest_s))
    axis, j = twin.context[g], context_segment(twin, g, context)
    v = max((context - axis[j]) / (axis[j + 1] - axis[j]), 0.0)
    return float(max(row[j] * (1.0 - v) + row[j + 1] * v, group.shortest_s))


@compiled
def count_gap(twin: Twin, seconds: float, count: int) -> None:
    """Count gaps between tokens."""
    position = math.log(max(seconds, GAP_SHORTEST_S) / GAP_SHORTEST_S) / math.log(GAP_RATIO)
    twin.gaps[min(int(position), GAP_BINS - 1)] += count
