"""What can be seen of a running twin: by a policy at its ticks, and as a series for plots."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.simulate.policy import GroupView, Observation
from planner.simulate.state import DRAINING, SERVING, Twin

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupSeries:
    """Groups over time.

    Parameters
    ----------
    t_s : (points,) float, seconds from the start
    ready, waiting, running : (groups, points) int
        Replicas that serve; requests in line; sequences in the batches.
    kv_usage_ratio : (groups, points) float
        Blocks in use, share of all, mean over the replicas that serve.
    """

    t_s: Floats
    ready: Integers
    waiting: Integers
    running: Integers
    kv_usage_ratio: Floats


class Onlooker:
    """Looks at a twin; holds its columns, which stay where they are while it runs."""

    def __init__(self, twin: Twin) -> None:
        workers = twin.workers
        self._group, self._state = np.asarray(workers.group), np.asarray(workers.state)
        self._ready_s = np.asarray(workers.ready_s)
        self._waiting, self._running = np.asarray(workers.waiting), np.asarray(workers.running)
        self._queued = np.asarray(workers.queued_tokens)
        self._kv_used = np.asarray(workers.kv_used)
        self._kv_blocks = np.asarray(twin.groups.kv_blocks)

    def _sums(self, values: Integers | Flags | None, those: Flags | None = None) -> Floats:
        """(groups,) sums over workers, or over those of them."""
        group = self._group
        if those is not None:
            group = group[those]
            values = None if values is None else values[those]
        sums = np.bincount(group, weights=values, minlength=len(self._kv_blocks))
        return sums.astype(np.float64)

    def sample(self, t_s: float) -> tuple[Floats, Floats, Floats, Floats]:
        """(groups,) ready workers, requests in line, sequences in batches, mean share of KV."""
        ready = (self._state == SERVING) & (self._ready_s <= t_s)
        count = self._sums(None, ready)
        used = self._sums(self._kv_used, ready) / np.maximum(count, 1) / self._kv_blocks
        return count, self._sums(self._waiting), self._sums(self._running), used

    def views(self, t_s: float) -> tuple[GroupView, ...]:
        """Every group as its replicas' metrics would tell."""
        ready, waiting, running, usage = self.sample(t_s)
        serving = self._sums(None, self._state == SERVING)
        draining = self._sums(None, self._state == DRAINING)
        queued = self._sums(self._queued)
        return tuple(
            GroupView(
                ready=int(ready[g]),
                starting=int(serving[g] - ready[g]),
                draining=int(draining[g]),
                waiting_requests=int(waiting[g]),
                running_requests=int(running[g]),
                queued_prompt_tokens=int(queued[g]),
                kv_usage_ratio=float(usage[g]),
            )
            for g in range(len(ready))
        )


def observe(
    twin: Twin, onlooker: Onlooker, t_s: float, since_s: float, overhead_s: Floats
) -> Observation:
    """What there is to see at a tick; the columns cover (since_s, t_s].

    Parameters
    ----------
    overhead_s : (groups,) float
        `first_token_s` of each, added to TTFT.
    """
    requests, records, clock = twin.requests, twin.records, twin.clock
    first = int(np.searchsorted(requests.arrival_s, since_s, side="right"))
    if since_s == 0:
        first = 0
    came = slice(first, int(clock.arrived[0]))
    order = twin.finished[: int(clock.finished[0])]
    done = order[int(np.searchsorted(records.finished_s[order], since_s, side="right")) :]
    answer = requests.output_tokens[done]
    gaps = np.where(answer > 1, answer - 1, np.nan)
    return Observation(
        t_s=t_s,
        since_s=since_s,
        groups=onlooker.views(t_s),
        arrived_input_tokens=np.array(requests.input_tokens[came]),
        finished_input_tokens=np.array(requests.input_tokens[done]),
        finished_output_tokens=np.array(answer),
        finished_ttft_s=records.first_token_s[done]
        - requests.arrival_s[done]
        + overhead_s[records.first_group[done]],
        finished_tpot_s=(records.finished_s[done] - records.first_token_s[done]) / gaps,
    )


def series(twin: Twin, onlooker: Onlooker, end_s: float) -> GroupSeries:
    """All samples of a run, and how things stand at its end."""
    count = int(twin.clock.samples[0])
    last = np.stack(onlooker.sample(end_s), axis=1)[None]
    table = np.concatenate([twin.sampled[:count], last]).transpose(2, 1, 0)
    return GroupSeries(
        t_s=np.append(twin.sampled_s[:count], end_s),
        ready=table[0].astype(np.int64),
        waiting=table[1].astype(np.int64),
        running=table[2].astype(np.int64),
        kv_usage_ratio=table[3],
    )
