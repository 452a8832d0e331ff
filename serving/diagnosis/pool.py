"""What all workers of a role did together in the interval."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from planner.domain.fleet import Role
from serving.diagnosis.watched import Look, Watch, WatchedWorker
from serving.telemetry.histogram import Histogram
from serving.telemetry.signals import Latency, Signal

LEAST_LOOKS = 5
"""Moments of a worker before shares of time are taken from them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Workers of one role; sums, and means over time.

    Parameters
    ----------
    workers : tuple of WatchedWorker
        Those with looks.
    silent : tuple of str
        Names of those that did not answer, or not often enough.
    """

    role: Role
    workers: tuple[WatchedWorker, ...]
    silent: tuple[str, ...] = ()

    @property
    def busy_ratio(self) -> float:
        """Share of time with anything in the batch; mean over workers."""
        return _mean(map(busy_ratio, self.workers))

    @property
    def running(self) -> float:
        """Requests in all batches."""
        return sum(_over(w, lambda x: x.running) for w in self.workers)

    @property
    def queued(self) -> float:
        """Requests that wait for these workers."""
        return sum(map(queued, self.workers))

    @property
    def waiting_for_kv(self) -> float:
        """Requests that wait for a KV cache from another worker."""
        return sum(_over(w, lambda x: x.waiting_for_kv) for w in self.workers)

    @property
    def kv_usage_ratio(self) -> float:
        """Share of the KV cache in use; mean over workers and time."""
        return _mean(_over(w, lambda x: x.kv_usage_ratio) for w in self.workers)

    def rate(self, pick: Callable[[WatchedWorker], Signal]) -> float | None:
        """A rate of all workers together; None when no one tells it."""
        values = [v for w in self.workers if (v := pick(w).value) is not None]
        return sum(values) if values else None

    def times(self, pick: Callable[[WatchedWorker], Latency]) -> Histogram | None:
        """A duration over all workers' values; None without any."""
        told = [h for w in self.workers if (h := pick(w).histogram) is not None and h.count > 0]
        return reduce(add, told) if told else None

    def mean_s(self, pick: Callable[[WatchedWorker], Latency]) -> float | None:
        """Mean of a duration over all workers' values, seconds; None without any."""
        pairs = [
            (latency.count.value or 0.0, latency.mean_s.value)
            for latency in map(pick, self.workers)
            if latency.mean_s.value is not None
        ]
        total = sum(count for count, _ in pairs)
        if total <= 0:
            return None
        return sum(count * mean for count, mean in pairs if mean is not None) / total

    @property
    def isl(self) -> float | None:
        """Mean prompt, tokens."""
        return self._by_requests(lambda w: w.signals.activity.isl)

    @property
    def osl(self) -> float | None:
        """Mean answer, tokens."""
        return self._by_requests(lambda w: w.signals.activity.osl)

    def _by_requests(self, pick: Callable[[WatchedWorker], Signal]) -> float | None:
        pairs = [
            (w.signals.activity.requests_per_s.value or 0.0, value)
            for w in self.workers
            if (value := pick(w).value) is not None
        ]
        total = sum(rate for rate, _ in pairs)
        return sum(rate * value for rate, value in pairs) / total if total > 0 else None


def pools_of(watch: Watch) -> dict[Role, Pool]:
    """Workers by role; roles without any worker that told enough are left out."""
    pools = {}
    for role in Role:
        mine = [w for w in watch.workers if w.role is role]
        told = tuple(w for w in mine if w.signals.answers and len(w.looks) >= LEAST_LOOKS)
        silent = tuple(w.signals.name for w in mine if w not in told)
        if told:
            pools[role] = Pool(role=role, workers=told, silent=silent)
    return pools


def busy_ratio(worker: WatchedWorker) -> float:
    """Share of time with anything in a worker's batch.

    The larger of two measures. vLLM tells its batch at the end of a step, when a prompt that was
    computed in one step with one token to answer has left it: a prefill worker's batch reads 0
    however busy it is. By Little's law prompts in work are the rate of requests times their
    prefill, exact while one is computed at a time, too much when several share a step.
    """
    told = worker.signals.activity
    rate, prefill_s = told.requests_per_s.value, told.prefilling.mean_s.value
    in_work = min(rate * prefill_s, 1.0) if rate and prefill_s else 0.0
    return max(_over(worker, lambda look: float(look.running > 0)), in_work)


def queued(worker: WatchedWorker) -> float:
    """Requests that wait for a worker; mean over time."""
    return _over(worker, lambda look: look.queued)


def share_of(
    workers: Sequence[WatchedWorker], holds: Callable[[WatchedWorker, Look], bool]
) -> float:
    """Share of all workers' moments in which something holds."""
    moments = [holds(w, look) for w in workers for look in w.looks]
    return sum(moments) / len(moments) if moments else 0.0


def _over(worker: WatchedWorker, pick: Callable[[Look], float]) -> float:
    return _mean(map(pick, worker.looks))


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0
