"""Moves replicas of a disaggregated deployment on Kubernetes by writing counts, one at a time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from kubernetes.client import ApiClient

from actuators.kubernetes.assignment import Key, assigned
from actuators.kubernetes.children import scaled_by_hand
from actuators.kubernetes.client import ClusterError
from actuators.kubernetes.counts import Count, Counter
from actuators.kubernetes.pods import Pods, pods_of
from actuators.kubernetes.preflight import objections_to
from actuators.kubernetes.stock_out import StockOut, StockOutError
from actuators.kubernetes.templates import BrokenTemplateError, broken_in, newest_templates
from actuators.kubernetes.victims import mark_victim, take_back
from planner.domain.errors import ApplyError, DeadlineMissedError, InputError
from planner.domain.fleet import Fleet, Pool, ReplicaShape, version_of
from planner.domain.rollout import Diff, Step, StepKind
from planner.domain.target import ClusterTarget, CountTarget

POLL_S = 2.0
OBSERVE_S = 60.0
"""A controller that has not begun with a new count after so long is not running."""


@dataclass(slots=True)
class KubernetesActuator:
    """Counts of pools in one namespace.

    Parameters
    ----------
    shapes : sequence of Key
        The pools; each has exactly one object that holds its count.
    instance : str
        Which Poolwise this is, where several might steer one object; see `instances`.
    before_write : callable
        Called before every try to write; what it raises ends the step.
    """

    api: ApiClient
    cluster: ClusterTarget
    shapes: Sequence[Key]
    objects: tuple[CountTarget, ...]
    instance: str = ""
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    before_write: Callable[[], None] = lambda: None
    poll_s: float = POLL_S
    observe_s: float = OBSERVE_S
    counters: dict[Key, Counter] = field(default_factory=dict, init=False)
    _counts: dict[CountTarget, int] = field(default_factory=dict)
    _serving: dict[CountTarget, int] = field(default_factory=dict)
    _templates: dict[ReplicaShape, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = assigned(self.api, self.cluster, self.shapes, self.objects, instance=self.instance)
        if found.problems:
            raise InputError("\n".join(dict.fromkeys(found.problems.values())))
        self.counters.update(found.counters)

    def read_fleet(self) -> Fleet:
        """Read all counts and pods; replicas asked for and not there yet are starting.

        Raises
        ------
        ClusterError
            When an object cannot be read.
        """
        pools = []
        for (shape, option), counter in self.counters.items():
            count = counter.read()
            pods = pods_of(self.api, counter, count)
            self._templates[shape] = newest_templates(pods.all, kind=counter.target.kind)
            pools.append(pool_of((shape, option), count, pods))
        found = tuple(pools)
        return Fleet(pools=found, read_at=datetime.now(UTC), version=version_of(found))

    def templates(self) -> dict[ReplicaShape, frozenset[str]]:
        """What the newest replica of each pool was made of when the fleet was read last."""
        return {shape: found for shape, found in self._templates.items() if found}

    def preflight(self, diff: Diff) -> tuple[str, ...]:
        """Ask the cluster about every target and write before the first one; nothing is changed.

        From here on the steps rest on the fleet that the diff was made from: whatever else is
        found on the way was changed by somebody else. (Not on what was read last: others read the
        fleet, too, while a rollout is on its way.)
        """
        for pool in diff.from_fleet.pools:
            counter = self.counters.get((pool.shape, pool.purchase_option))
            if counter is not None:
                self._counts[counter.target] = pool.asked
                self._serving[counter.target] = pool.ready
        return objections_to(diff, self.counters, self.api, self.cluster)

    def apply(self, step: Step) -> None:
        """Write the count that a step changes, once.

        Raises
        ------
        ApplyError, ClusterError
            When the count is not the one that is known, or the cluster refuses.
        DeadlineMissedError
            When something is to be taken away while other replicas do not serve any more.
        """
        if step.kind not in (StepKind.START, StepKind.DRAIN):
            return
        counter = self._counter(step)
        if step.kind is StepKind.DRAIN:
            self._await_capacity()
        count = self._unchanged(counter)
        more = 1 if step.kind is StepKind.START else -1
        wanted = count.replicas + more
        if wanted < 0:
            raise ApplyError(f"{counter.target.label} has no replica left to take away")
        if step.kind is StepKind.DRAIN:
            self._drain(counter, count, wanted)
        else:
            counter.write(count, wanted, before=self.before_write)
        target = counter.target
        self._counts[target] = wanted
        serving = self._serving.get(target, count.replicas)
        if step.kind is StepKind.DRAIN and count.replicas <= serving:  # else one that is starting
            self._serving[target] = serving - 1

    def _drain(self, counter: Counter, count: Count, wanted: int) -> None:
        """Choose who leaves, then write; where nobody leaves after all, nobody stays chosen."""
        self.before_write()
        mark = mark_victim(self.api, counter, count, pods_of(self.api, counter, count))
        try:
            counter.write(count, wanted, before=self.before_write)
        except ClusterError as error:
            if mark is None or self._landed(counter, wanted):
                raise
            left = take_back(self.api, counter, mark)
            if not left:
                raise
            raise ClusterError(f"{error}; {left}", status=error.status) from error

    def _landed(self, counter: Counter, wanted: int) -> bool:
        """Whether a write of which nobody heard is there; where nobody knows, it is not."""
        try:
            return counter.read().replicas == wanted
        except ClusterError:
            return False

    def await_ready(self, step: Step) -> None:
        """Wait until the cluster shows the step's effect.

        Raises
        ------
        StockOutError
            When replicas found no accelerator before the deadline.
        BrokenTemplateError
            When what their pods are made of does not start.
        DeadlineMissedError
            When they did not become ready, or did not go, before it.
        ApplyError
            When the count is not what was written, or another pool's was changed meanwhile.
        """
        counter = self._counter(step)
        if step.kind is StepKind.START:
            self._await(counter, _all_ready, self.cluster.progress_deadline_s, step)
        elif step.kind is StepKind.ROUTE:
            # A pod that is ready takes traffic: there is nothing to write.
            serving = self._serving.get(counter.target, 0) + 1
            self._serving[counter.target] = serving
            deadline_s = self.cluster.progress_deadline_s
            self._await(counter, lambda _count, pods: pods.ready >= serving, deadline_s, step)
        elif step.kind is StepKind.DRAIN:
            self._await(counter, _was_taken, self.observe_s, step)
        elif step.kind is StepKind.STOP:
            self._await(counter, _nobody_leaves, self.cluster.progress_deadline_s, step)
        if step.kind in (StepKind.DRAIN, StepKind.STOP):
            self._await_capacity()
        for other in self.counters.values():  # what a plan rests on may not move meanwhile
            if other is not counter:
                self._unchanged(other)

    def _await_capacity(self) -> None:
        """Wait until everything serves that served, or was seen to come: the rest rests on it."""
        until_s = self.clock() + self.observe_s
        while lacking := [text for one in self.counters.values() if (text := self._lacking(one))]:
            if self.clock() >= until_s:
                raise DeadlineMissedError(
                    f"{'; '.join(lacking)}: nothing is taken away on the strength of them; look "
                    "at their pods, then plan again"
                )
            self.sleep(self.poll_s)

    def _lacking(self, counter: Counter) -> str:
        """Which replicas of a pool that should serve do not; empty: all do."""
        should = self._serving.get(counter.target, 0)
        ready = pods_of(self.api, counter, counter.read()).ready if should else 0
        if ready >= should:
            return ""
        return f"of {should} replicas of {counter.target.label} that served {ready} are ready"

    def _await(
        self,
        counter: Counter,
        holds: Callable[[Count, Pods], bool],
        limit_s: float,
        step: Step,
    ) -> None:
        until_s = self.clock() + limit_s
        while True:
            count = self._unchanged(counter)
            pods = pods_of(self.api, counter, count)
            if holds(count, pods):
                return
            if self.clock() >= until_s:
                raise self._late(counter, count, pods, step, limit_s)
            self.sleep(self.poll_s)

    def _late(
        self, counter: Counter, count: Count, pods: Pods, step: Step, limit_s: float
    ) -> ApplyError:
        label = counter.target.label
        why = "; ".join((*pods.why, *scaled_by_hand(self.api, counter, count)))
        if step.kind in (StepKind.DRAIN, StepKind.STOP):
            return DeadlineMissedError(
                f"{label} still shows {pods.ready + pods.coming + pods.leaving} for "
                f"{count.replicas} replicas after {limit_s:g} s: "
                + (why or "look whether its controller runs")
            )
        if pods.unplaced:
            shape = step.shape
            until = datetime.now(UTC) + timedelta(seconds=self.cluster.stock_out_cooldown_s)
            usable = self._placed(shape.accelerator)
            return StockOutError(
                f"{label}: {pods.unplaced} of {count.replicas} replicas found no "
                f"{shape.accelerator} within {limit_s:g} s ({why}); until {until:%H:%M} UTC plans "
                f"count on {usable} of them",
                StockOut(accelerator=shape.accelerator, usable=usable, until_at=until),
            )
        said = (
            f"{label}: {pods.ready} of {count.replicas} replicas are ready after {limit_s:g} s"
            + (f" ({why})" if why else "")
            + "; look at its pods, then plan again"
        )
        broken = broken_in(pods.all)
        if broken is None:
            return DeadlineMissedError(said)
        template, reason = broken
        return BrokenTemplateError(said, pool=step.shape.label, template=template, why=reason)

    def _placed(self, accelerator: str) -> int:
        """Accelerators of a type that our pods occupy."""
        placed = 0
        for (shape, _option), counter in self.counters.items():
            if shape.accelerator == accelerator:
                pods = pods_of(self.api, counter, counter.read())
                there = pods.ready + pods.coming + pods.leaving - pods.unplaced
                placed += there * shape.accelerators
        return placed

    def _unchanged(self, counter: Counter) -> Count:
        """The count as it is, which must be the one of the diff, or that we wrote since."""
        count = counter.read()
        known = self._counts.setdefault(counter.target, count.replicas)
        if count.replicas != known:
            raise ApplyError(
                f"{counter.target.label} has {count.replicas} replicas, not {known} as expected: "
                "somebody else changed it; it is left as it is, plan again"
            )
        return count

    def _counter(self, step: Step) -> Counter:
        counter = self.counters.get((step.shape, step.purchase_option))
        if counter is None:
            raise ApplyError(
                f"no object holds the count of {step.shape.label}: name one under target.objects"
            )
        if step.kind is StepKind.FLIP:
            raise ApplyError("a pod's role cannot be changed in place on Kubernetes: plan again")
        return counter


def pool_of(key: Key, count: Count, pods: Pods) -> Pool:
    """A pool as its count and its pods show it.

    What was asked for and is not ready is starting; what runs beyond the count, as after somebody
    scaled a child by hand, is on its way out like what was told to end.
    """
    ready = min(pods.ready, count.replicas)
    surplus = max(pods.ready + pods.coming - count.replicas, 0)
    return Pool(
        shape=key[0],
        purchase_option=key[1],
        ready=ready,
        starting=count.replicas - ready,
        draining=pods.leaving + surplus,
    )


def _all_ready(count: Count, pods: Pods) -> bool:
    return pods.ready >= count.replicas


def _was_taken(count: Count, pods: Pods) -> bool:
    """The controller has begun: no more pods stay than are wanted."""
    return pods.ready + pods.coming <= count.replicas


def _nobody_leaves(_count: Count, pods: Pods) -> bool:
    return pods.leaving == 0
