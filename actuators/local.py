"""Apply rollout steps to a deployment of processes on this machine."""

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from planner.domain.errors import ApplyError, GuardRefusedError
from planner.domain.fleet import Fleet, ReplicaShape, Role
from planner.domain.rollout import Diff, Step, StepKind
from serving.fleet.deployment import LocalDeployment, WorkerState
from serving.fleet.members import Member, check_leaving
from serving.workers.launcher import Worker

POLL_S = 0.05


@dataclass(slots=True)
class LocalActuator:
    """Moves workers of a running LocalDeployment."""

    deployment: LocalDeployment
    _begun: dict[int, Worker] = field(default_factory=dict)

    def read_fleet(self) -> Fleet:
        """Read processes and router."""
        return self.deployment.fleet()

    def preflight(self, diff: Diff) -> tuple[str, ...]:
        """Object to foreign models, unroutable roles, and replicas that are not there."""
        served = self.deployment.site.model.name
        objections = [
            f"step {s.index + 1} is for model {s.shape.model}, but {served} is served here"
            for s in diff.steps
            if s.shape.model != served
        ]
        objections += [
            f"step {s.index + 1} wants an aggregated worker, which the P/D router cannot route"
            for s in diff.steps
            if Role.AGGREGATED in (s.shape.role, s.to_shape.role if s.to_shape else None)
            and not self.deployment.routing.mixed
        ]
        objections += self._other_cells(diff)
        ready = Counter({p.shape: p.ready for p in diff.from_fleet.pools})
        objections += [
            f"the fleet was read with {count} ready {shape.label}, but {have} can be moved"
            for shape, count in ready.items()
            if (have := len(self.deployment.workers(shape, WorkerState.READY))) != count
        ]
        return tuple(objections)

    def apply(self, step: Step) -> None:
        """Set one step going, in its cell where it names one."""
        match step.kind:
            case StepKind.START:
                cell = step.cell or None
                self._begun[step.index] = self.deployment.claim_standby(
                    step.shape, cell
                ) or self.deployment.start(step.shape, cell, held=True)
            case StepKind.ROUTE:
                self._route(step)
            case StepKind.DRAIN:
                coming = self._coming(step)
                if coming:
                    self.deployment.drain(coming[-1].worker)
                else:
                    self.deployment.drain(self._spare(step, to=None))
            case StepKind.FLIP:
                self._flip(step, _target_of(step))
            case StepKind.STOP:
                self.deployment.stop(self._some(step, WorkerState.DRAINING)[0])

    def await_ready(self, step: Step) -> None:
        """Wait for a started worker's first token; for the rest, check what is observed."""
        if step.kind is StepKind.START:
            begun = self._begun.get(step.index)
            held = [m.worker for m in self._coming(step) if m.awaits_route]
            for worker in held if begun is None else [begun]:
                self.deployment.await_ready(worker)
            return
        starting = [m.name for m in self.deployment.members if m.state is WorkerState.STARTING]
        self.deployment.launcher.check_alive(but=starting)  # theirs is not this step's failure
        if step.kind in (StepKind.ROUTE, StepKind.FLIP):
            self._check_routed(_target_of(step))

    def _check_routed(self, shape: ReplicaShape) -> None:
        pools = [p for p in self.read_fleet().pools if p.shape == shape]
        expected = len(self.deployment.workers(shape, WorkerState.READY))
        if sum(p.ready for p in pools) != expected:
            raise ApplyError(
                f"the router does not send traffic to all {expected} replicas of {shape.label}"
            )

    def _other_cells(self, diff: Diff) -> list[str]:
        """Objections to cells that there are not, and to workers that moved since."""
        cells = {cell.name for cell in self.deployment.site.cells}
        unknown = sorted({s.cell for s in diff.steps if s.cell} - cells)
        objections = [
            f"there is no cell {cell} here, only {', '.join(sorted(cells))}" for cell in unknown
        ]
        ready = Counter({(p.cell, p.pool.shape): p.pool.ready for p in diff.from_fleet.by_cell})
        objections += [
            f"cell {cell} was read with {count} ready {shape.label}, but {have} are there"
            for (cell, shape), count in ready.items()
            if (have := len(self.deployment.workers(shape, WorkerState.READY, cell))) != count
        ]
        return objections

    def _coming(self, step: Step) -> list[Member]:
        """Live workers that start in the step's pool: the caretaker's, then a plan's; oldest first.

        Of a plan's, those that were on standby come first: they are the last to be ended.
        """
        found = [
            m
            for m in self.deployment.members
            if m.is_coming
            and m.shape == step.shape
            and step.cell in ("", m.cell)
            and self.deployment.launcher.is_alive(m.worker)
        ]
        return sorted(found, key=lambda m: (m.awaits_route, not m.is_claimed))

    def _route(self, step: Step) -> None:
        """Route a worker that a step started; else wait for one that comes by itself."""
        coming = self._coming(step)
        held = next((m for m in coming if m.awaits_route), None)
        if held is not None:
            self.deployment.await_ready(held.worker)
            self.deployment.route(held.worker)
        elif coming:  # the caretaker's: it routes what it starts
            self._await_routed(coming[0].worker)
        else:
            raise self._nobody(step, WorkerState.STARTING)

    def _await_routed(self, worker: Worker) -> None:
        until_s = time.monotonic() + self.deployment.site.ready_timeout_s
        while time.monotonic() < until_s:
            member = next((m for m in self.deployment.members if m.worker == worker), None)
            if member is None:
                raise ApplyError(f"{worker.name} died while it started: plan again")
            if member.state is WorkerState.READY:
                return
            time.sleep(POLL_S)
        raise ApplyError(f"nobody routed {worker.name}, which was starting: plan again")

    def _flip(self, step: Step, to_shape: ReplicaShape) -> None:
        """Let a worker that a plan left unrouted take traffic in the other role, or a ready one."""
        coming = self._coming(step)
        if coming and coming[-1].awaits_route:
            self.deployment.await_ready(coming[-1].worker)
            self.deployment.promote(coming[-1].worker, to_shape)
            return
        if coming and len(self._some(step, WorkerState.READY)) == 1:
            raise ApplyError(
                f"the only ready replica of {step.shape.label} would leave while {coming[0].name} "
                "still starts: plan again when that is ready"
            )
        self.deployment.flip(self._spare(step, to=to_shape.role), to_shape)

    def _spare(self, step: Step, *, to: Role | None) -> Worker:
        """The newest ready worker of the step's cell; without one, of a cell that can spare it.

        Where the diff names cells, or there is only one, the plan's own guards have judged already
        what its leaving does.
        """
        ready = self._some(step, WorkerState.READY)
        if step.cell or len(self.deployment.site.cells) == 1:
            return ready[-1]
        members = self.deployment.members
        for worker in reversed(ready):
            with suppress(GuardRefusedError):
                check_leaving(self.deployment.member(worker.name), members, to=to)
                return worker
        raise ApplyError(
            f"every {step.shape.role} worker is the last one of its cell, whose other workers need "
            "it: give the cell one more first"
        )

    def _some(self, step: Step, state: WorkerState) -> tuple[Worker, ...]:
        """Workers that the step may act on, oldest first."""
        workers = self.deployment.workers(step.shape, state, step.cell or None)
        if not workers:
            raise self._nobody(step, state)
        return workers

    def _nobody(self, step: Step, state: WorkerState) -> ApplyError:
        where = f" in cell {step.cell}" if step.cell else ""
        return ApplyError(f"there is no {state} replica of {step.shape.label}{where}")


def _target_of(step: Step) -> ReplicaShape:
    return step.to_shape or step.shape
