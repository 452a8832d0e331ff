"""The deployments themselves: their specs, how these are replaced, and how they come and go."""

from typing import Annotated

from fastapi import APIRouter, Body, HTTPException, Query, Response
from fastapi.openapi.models import Example
from pydantic import AwareDatetime, Field, JsonValue

from planner.domain.errors import UnknownDeploymentError
from planner.domain.spec import LoopMode, TargetKind
from planner.service.api import revisions
from planner.service.api.examples import SPEC
from planner.service.api.problems import answers
from planner.service.api.revisions import IfNoneMatch, Revision
from planner.service.api.service import (
    PrincipalParameter,
    ServedParameter,
    Service,
    ServiceParameter,
)
from planner.service.documents.document import Document
from planner.service.hosting.host import Host
from planner.service.hosting.registry import Served
from planner.service.security.access import AccessRole, Principal

ROUTER = APIRouter(prefix="/v1/deployments", tags=["deployments"])

SPEC_EXAMPLES = {"whole": Example(summary="A spec with its profile inline", value=SPEC)}


class DeploymentSummary(Document):
    """A deployment, and which spec it follows."""

    name: str
    model: str = Field(description="the one that is planned")
    mode: LoopMode = Field(
        description="of the spec; orders of people go before: `GET .../directives`"
    )
    target: TargetKind = Field(description="where plans are applied")
    spec_id: str = Field(description="another one for another spec; plans name it in `inputs`")
    version: int = Field(description="of the spec, from 1; its ETag")
    put_at: AwareDatetime | None = Field(description="since when it is in force")
    put_by: str = Field(description="`serve`: the file that the server was started with")


class DeploymentResource(DeploymentSummary):
    """A deployment with its spec."""

    spec: dict[str, JsonValue] = Field(description="everything inline, as it may be put again")


class DeploymentList(Document):
    """What this server plans."""

    deployments: list[DeploymentSummary]


ADDED: dict[int | str, dict[str, object]] = {
    201: {"model": DeploymentResource, "description": "A deployment was added"}
}


@ROUTER.get("")
def get_deployments(service: ServiceParameter) -> DeploymentList:
    """What this server plans."""
    return DeploymentList(deployments=[_summary(one) for one in service.registry.all()])


@ROUTER.get("/{name}", responses=revisions.UNCHANGED | answers(404))
def get_deployment(
    served: ServedParameter, response: Response, if_none_match: IfNoneMatch = None
) -> DeploymentResource:
    """One deployment with the spec in force; its ETag is the version of that."""
    resource = _resource(served)
    revisions.check_new(if_none_match, resource.version)
    response.headers["ETag"] = revisions.etag(resource.version)
    return resource


@ROUTER.put("/{name}", responses=ADDED | answers(403, 404, 409, 412))
def put_deployment(
    *,
    name: str,
    body: Annotated[dict[str, JsonValue], Body(openapi_examples=SPEC_EXAMPLES)],
    service: ServiceParameter,
    principal: PrincipalParameter,
    revision: Revision,
    response: Response,
    allow_estimates: Annotated[
        bool, Query(description="estimate missing profiles by roofline")
    ] = False,
) -> DeploymentResource:
    """Replace the spec; it is validated as a whole first, and every version is kept.

    `profiles` hold the content, or the id of a stored one. Plans that wait and were made under
    another spec are superseded. `name` and `target.kind` stay as they are. `approval` is changed by
    admins only: 403. Under a new name an admin adds a deployment, which is served from then on,
    also after a restart.
    """
    by, now = principal.name, service.now()
    if name not in service.registry:
        host = _may(service, principal, f"add deployment {name}")
        if revision is not None:
            raise UnknownDeploymentError(f"no deployment {name} is there to be replaced")
        served = host.add(name, body, allow_estimates=allow_estimates, by=by, at=now)
        response.status_code = 201
    else:
        served = service.registry.get(name)
        if served.specs is None:
            raise HTTPException(409, f"the spec of {name} cannot be replaced here")
        served.specs.put(
            body,
            allow_estimates=allow_estimates,
            by=by,
            at=now,
            expected=revision,
            may_change_approval=principal.role.may(AccessRole.ADMIN),
        )
    resource = _resource(served)
    response.headers["ETag"] = revisions.etag(resource.version)
    return resource


@ROUTER.delete("/{name}", status_code=204, responses=answers(404, 409))
def delete_deployment(
    served: ServedParameter, service: ServiceParameter, principal: PrincipalParameter
) -> None:
    """Retire a deployment: no tick more, its fleet stays as it is, and so does what is kept of it.

    409 while a plan moves its fleet. It stays retired after a restart, also where the very file
    names it that it was started with; `PUT` brings it back.
    """
    host = _may(service, principal, f"retire deployment {served.name}")
    host.retire(served.name, by=principal.name, at=service.now())


def _may(service: Service, principal: Principal, what: str) -> Host:
    """What adds and retires deployments, for admins."""
    if not principal.role.may(AccessRole.ADMIN):
        raise HTTPException(403, f"{principal.name} may not {what}: that takes an admin")
    if service.host is None:
        raise HTTPException(409, "deployments can neither be added nor retired here")
    return service.host


def _summary(served: Served) -> DeploymentSummary:
    deployment, specs = served.deployment, served.specs
    spec = deployment.spec
    return DeploymentSummary(
        name=spec.name,
        model=deployment.model,
        mode=spec.loop.mode,
        target=spec.target,
        spec_id=spec.spec_id,
        version=specs.now.version if specs else 0,
        put_at=specs.now.put_at if specs else None,
        put_by=specs.now.put_by if specs else "",
    )


def _resource(served: Served) -> DeploymentResource:
    content = dict(served.specs.now.content) if served.specs else {}
    return DeploymentResource.model_validate({**dict(_summary(served)), "spec": content})
