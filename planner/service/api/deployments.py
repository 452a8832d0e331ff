"""The deployment: its fleet, what was observed, what was decided."""

from fastapi import APIRouter, HTTPException
from pydantic import Field

from planner.domain.errors import HistoryError
from planner.domain.spec import TargetKind
from planner.service import known_fleet
from planner.service.api.bodies import ObservationsBody
from planner.service.api.service import ServiceParameter, Writer
from planner.service.documents.backlog import BacklogDocument, backlog_of
from planner.service.documents.document import Document
from planner.service.documents.fleet import FleetDocument, fleet_document, fleet_of
from planner.service.documents.history import windows_of
from planner.service.planning import check_classes

ROUTER = APIRouter(prefix="/v1/deployments/{name}", tags=["deployments"])
LIST = APIRouter(prefix="/v1/deployments", tags=["deployments"])


class ServedDeployment(Document):
    """A deployment that this server plans."""

    name: str
    model: str
    target: TargetKind


class DeploymentList(Document):
    """The deployments that this server plans."""

    deployments: list[ServedDeployment]


@LIST.get("")
def get_deployments(service: ServiceParameter) -> DeploymentList:
    """What this server plans."""
    spec, model = service.deployment.spec, service.deployment.model
    served = ServedDeployment(name=spec.name, model=model, target=spec.target)
    return DeploymentList(deployments=[served])


class Accepted(Document):
    """How much was taken in."""

    windows: int = Field(
        description="how many were stored; those of hours that are summed up already are left out"
    )


@ROUTER.get("/fleet")
def get_fleet(name: str, service: ServiceParameter) -> FleetDocument:
    """What runs now, as the target has it."""
    service.check_deployment(name)
    try:
        return fleet_document(known_fleet.read(service.deployment))
    except HistoryError as error:
        raise HTTPException(404, str(error)) from error


@ROUTER.put("/fleet")
def put_fleet(
    name: str, body: FleetDocument, service: ServiceParameter, by: Writer
) -> FleetDocument:
    """Hand in what runs now; for targets dry_run and metrics, which do not read it themselves."""
    service.check_deployment(name)
    deployment, now = service.deployment, service.now()
    if deployment.spec.target not in (TargetKind.DRY_RUN, TargetKind.METRICS):
        raise HTTPException(409, f"the fleet of target {deployment.spec.target} is read, not told")
    fleet = fleet_of(body, spec=deployment.spec, read_at=now, where="fleet")
    deployment.store.put_fleet(name, fleet, received_at=now, actor=by)
    service.metrics.record_fleet(name, fleet)
    return fleet_document(fleet)


@ROUTER.put("/backlog")
def put_backlog(
    name: str, body: BacklogDocument, service: ServiceParameter, _by: Writer
) -> BacklogDocument:
    """Hand in what waits now, for the fast tick; an older one than the kept one changes nothing."""
    service.check_deployment(name)
    deployment = service.deployment
    deployment.store.put_backlog(name, backlog_of(body, model=deployment.model))
    return body


@ROUTER.post("/observations", status_code=201)
def post_observations(
    name: str, body: ObservationsBody, service: ServiceParameter, by: Writer
) -> Accepted:
    """Hand in observed windows; one for the same class and start replaces the older one."""
    service.check_deployment(name)
    deployment = service.deployment
    windows = windows_of(body.history, where="history")
    check_classes(deployment.spec, deployment.model, {w.request_class for w in windows})
    count = deployment.store.add_windows(
        name, deployment.model, windows, received_at=service.now(), actor=by
    )
    return Accepted(windows=count)
