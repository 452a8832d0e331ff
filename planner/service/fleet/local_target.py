"""The target `local`: a rollout's steps through the control socket of a running deployment.

Both ends are here, since they share the form of what goes through: the documents of the API.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import cast

import psutil

from actuators.local import LocalActuator
from planner.domain.errors import EngineError, InputError
from planner.domain.fleet import CellPool, Fleet, Pool, ReplicaShape, merged
from planner.domain.rollout import Diff, Step
from planner.domain.spec import Spec
from planner.service.documents.document import Document, parse
from planner.service.documents.fleet import FleetDocument, PoolDocument, fleet_document, fleet_of
from planner.service.documents.replica_shape import ShapeOfReplicaDocument
from planner.service.documents.rollout import DiffDocument, StepDocument, diff_document
from serving.fleet.commands import Commands
from serving.fleet.control import ControlClient, Json, Say


def _nothing() -> None:
    """Nobody has to be asked before a write."""


@dataclass(slots=True, kw_only=True)
class RunningDeployment:
    """An actuator for the deployment that `poolwise deployment up` runs on this machine.

    Parameters
    ----------
    before_write : callable
        Raises where this process may no longer move the fleet.
    """

    control: ControlClient
    spec: Spec
    before_write: Callable[[], None] = _nothing

    def read_fleet(self) -> Fleet:
        """Read processes and routers.

        Raises
        ------
        EngineError
            When none runs, or it hangs.
        HistoryError
            When it runs what the spec does not have.
        """
        said = parse(FleetDocument, _object(self.control.ask("fleet"), "fleet"), where=_WHERE)
        return fleet_of(said, spec=self.spec, read_at=datetime.now(UTC), where=_WHERE)

    def preflight(self, diff: Diff) -> tuple[str, ...]:
        """Object as the deployment does: models, cells, shapes and replicas it does not have."""
        document = diff_document(diff).model_dump(mode="json")
        said = self.control.ask("preflight", diff=document, mover=self._mover)
        return tuple(str(reason) for reason in cast("list[object]", said["objections"]))

    def apply(self, step: Step) -> None:
        """Set one step going; a drain or flip is over when it returns."""
        self.before_write()
        self.control.ask("apply", step=_step_document(step), mover=self._mover)

    def await_ready(self, step: Step) -> None:
        """Wait for a started worker's first token; for the rest, check what is observed."""
        self.control.ask("await_ready", step=_step_document(step))

    @property
    def _mover(self) -> Json:
        return {"spec": self.spec.name, "pid": os.getpid()}


class Mover(Document):
    """Whose plans move a deployment: those of the spec that this process serves."""

    spec: str
    pid: int


@dataclass(slots=True)
class StepCommands:
    """Answers at the socket what `RunningDeployment` asks, and people's commands beside it.

    A step and a command of a person are never carried out at the same time. Whose plans move the
    deployment may change once the process that served them has ended: two specs would move it to
    and fro.
    """

    commands: Commands
    actuator: LocalActuator
    _mover: Mover | None = None

    def answer(self, request: Json, say: Say) -> Json:
        """Carry out one request; as `Commands.answer`."""
        match request.get("command"):
            case "fleet":
                fleet = fleet_document(self.actuator.read_fleet())
                return {"fleet": fleet.model_dump(mode="json")}
            case "preflight":
                diff = parse(DiffDocument, _object(request, "diff"), where="diff")
                other = self._other_mover(_mover_of(request))
                return {"objections": [*other, *self._objections(diff)]}
            case "apply":
                step, mover = self._step(_parsed(request)), _mover_of(request)
                with self.commands.changes.alone(f"a plan's step, {step.kind} {step.shape.label}"):
                    for objection in self._other_mover(mover):
                        raise EngineError(objection)
                    self._mover = mover or self._mover
                    self.actuator.apply(step)
                return {}
            case "await_ready":
                self.actuator.await_ready(self._step(_parsed(request)))
                return {}
            case _:
                return self.commands.answer(request, say)

    def _other_mover(self, mover: Mover | None) -> tuple[str, ...]:
        """Why a plan's steps are refused: another spec's move the deployment already."""
        known = self._mover
        if mover is None or known is None or known.spec == mover.spec:
            return ()
        if not psutil.pid_exists(known.pid):
            return ()
        return (
            f"spec {mover.spec} may not move this deployment: the server of spec {known.spec} "
            f"(process {known.pid}) does; end one of the two, or give them state directories of "
            "their own",
        )

    def _objections(self, document: DiffDocument) -> tuple[str, ...]:
        try:
            steps = tuple(self._step(step) for step in document.steps)
        except InputError as error:
            return (str(error),)
        fleet = self._fleet(document.from_fleet)
        return self.actuator.preflight(
            Diff(plan_id=document.plan_id, from_fleet=fleet, steps=steps)
        )

    def _fleet(self, document: FleetDocument) -> Fleet:
        parts = tuple(CellPool(cell=p.cell or "", pool=self._pool(p)) for p in document.pools)
        known = any(part.cell for part in parts)
        return Fleet(
            pools=merged(parts),
            read_at=document.read_at or datetime.now(UTC),
            version=document.version or "",
            by_cell=parts if known else (),
        )

    def _pool(self, document: PoolDocument) -> Pool:
        shape = document.shape(document.model or self._own.model)
        return Pool(shape=shape, ready=document.ready)

    def _step(self, document: StepDocument) -> Step:
        return Step(
            index=document.index,
            kind=document.kind,
            shape=self._served(document.shape),
            to_shape=None if document.to_shape is None else self._served(document.to_shape),
            purchase_option=document.purchase_option,
            expected_s=document.expected_s,
            expected_usd=document.expected_usd,
            reason=document.reason,
            cell=document.cell,
        )

    def _served(self, fields: ShapeOfReplicaDocument) -> ReplicaShape:
        """The shape as workers here have it.

        Raises
        ------
        InputError
            When they are of another kind.
        """
        asked = fields.shape(fields.model)
        own = replace(self._own, role=asked.role)
        if asked != own:
            raise InputError(
                f"the plan moves {asked.label} of {asked.model}, but the deployment runs "
                f"{own.label} of {own.model}: give the spec's pool what runs, or start the "
                "deployment with --name, --accelerator and --tp as in the spec"
            )
        return own

    @property
    def _own(self) -> ReplicaShape:
        return self.commands.changes.shape


_WHERE = "the running deployment"


class _StepRequest(Document):
    command: str
    step: StepDocument
    mover: Mover | None = None


def _mover_of(request: Json) -> Mover | None:
    if request.get("mover") is None:
        return None
    return parse(Mover, _object(request, "mover"), where="mover")


def _parsed(request: Json) -> StepDocument:
    return parse(_StepRequest, request, where="request").step


def _object(answer: Json, name: str) -> Json:
    value = answer.get(name)
    if not isinstance(value, dict):
        raise InputError(f"{name} must be an object, got {value!r}")
    return cast("Json", value)


def _step_document(step: Step) -> Json:
    nothing = Fleet(pools=(), read_at=datetime.now(UTC), version="")
    (document,) = diff_document(Diff(plan_id="", from_fleet=nothing, steps=(step,))).steps
    return document.model_dump(mode="json")
