"""Apply rollout steps to a deployment of processes on this machine."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from planner.domain.errors import ApplyError, GuardRefusedError
from planner.domain.fleet import Fleet, ReplicaShape, Role
from planner.domain.rollout import Diff, Step, StepKind
from serving.fleet.deployment import LocalDeployment, WorkerState
from serving.fleet.members import check_leaving
from serving.workers.launcher import Worker


@dataclass(slots=True)
class LocalActuator:
    """Moves workers of a running LocalDeployment."""

    deployment: LocalDeployment

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
                if self.deployment.claim_standby(step.shape, cell) is None:
                    self.deployment.start(step.shape, cell)
            case StepKind.ROUTE:
                worker = self._some(step, WorkerState.STARTING)[0]
                self.deployment.await_ready(worker)
                self.deployment.route(worker)
            case StepKind.DRAIN:
                self.deployment.drain(self._spare(step, to=None))
            case StepKind.FLIP:
                to_shape = _target_of(step)
                self.deployment.flip(self._spare(step, to=to_shape.role), to_shape)
            case StepKind.STOP:
                self.deployment.stop(self._some(step, WorkerState.DRAINING)[0])

    def await_ready(self, step: Step) -> None:
        """Wait for a started worker's first token; for the rest, check what is observed."""
        if step.kind is StepKind.START:
            for worker in self.deployment.workers(step.shape, WorkerState.STARTING):
                self.deployment.await_ready(worker)
            return
        self.deployment.launcher.check_alive()
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
            where = f" in cell {step.cell}" if step.cell else ""
            raise ApplyError(f"there is no {state} replica of {step.shape.label}{where}")
        return workers


def _target_of(step: Step) -> ReplicaShape:
    return step.to_shape or step.shape
