"""The deployment itself: its spec, which version of it is in force, and how it is replaced."""

from typing import Annotated

from fastapi import APIRouter, Body, HTTPException, Query, Response
from fastapi.openapi.models import Example
from pydantic import AwareDatetime, Field, JsonValue

from planner.domain.spec import LoopMode, TargetKind
from planner.service.api import revisions
from planner.service.api.examples import SPEC
from planner.service.api.problems import answers
from planner.service.api.revisions import IfNoneMatch, Revision
from planner.service.api.service import PrincipalParameter, Service, ServiceParameter
from planner.service.documents.document import Document
from planner.service.security.access import AccessRole

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


@ROUTER.get("")
def get_deployments(service: ServiceParameter) -> DeploymentList:
    """What this server plans."""
    return DeploymentList(deployments=[_summary(service)])


@ROUTER.get("/{name}", responses=revisions.UNCHANGED | answers(404))
def get_deployment(
    name: str, service: ServiceParameter, response: Response, if_none_match: IfNoneMatch = None
) -> DeploymentResource:
    """One deployment with the spec in force; its ETag is the version of that."""
    service.check_deployment(name)
    resource = _resource(service)
    revisions.check_new(if_none_match, resource.version)
    response.headers["ETag"] = revisions.etag(resource.version)
    return resource


@ROUTER.put("/{name}", responses=answers(404, 409, 412))
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
    admins only: 403.
    """
    service.check_deployment(name)
    if service.specs is None:
        raise HTTPException(409, f"the spec of {name} cannot be replaced here")
    service.specs.put(
        body,
        allow_estimates=allow_estimates,
        by=principal.name,
        at=service.now(),
        expected=revision,
        may_change_approval=principal.role.may(AccessRole.ADMIN),
    )
    resource = _resource(service)
    response.headers["ETag"] = revisions.etag(resource.version)
    return resource


def _summary(service: Service) -> DeploymentSummary:
    deployment, specs = service.deployment, service.specs
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


def _resource(service: Service) -> DeploymentResource:
    content = dict(service.specs.now.content) if service.specs else {}
    return DeploymentResource.model_validate({**dict(_summary(service)), "spec": content})
