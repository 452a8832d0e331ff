"""Profiles: those that the specs in force plan with, and those that were handed in."""

import json
from typing import Annotated

from fastapi import APIRouter, Body, HTTPException, Query, Request, Response
from fastapi.openapi.models import Example
from pydantic import AwareDatetime, Field, JsonValue

from planner.domain.fleet import Role
from planner.domain.profile import Profile, ProfileKind
from planner.service.api import paging
from planner.service.api.examples import PROFILE
from planner.service.api.paging import CursorParameter
from planner.service.api.problems import answers
from planner.service.api.repeating import Once
from planner.service.api.service import Service, ServiceParameter, Writer
from planner.service.documents.document import Document
from planner.service.store.profiles import StoredProfiles
from profiler.files import profile_document, profile_of

ROUTER = APIRouter(prefix="/v1/profiles", tags=["profiles"])
EXAMPLES = {"measured": Example(summary="As `poolwise profile run` writes it", value=PROFILE)}


class ProfileSummary(Document):
    """Whose profile it is and where it comes from."""

    profile_id: str = Field(description="derived from the content")
    model: str
    accelerator: str
    tp: int
    pp: int
    dp: int
    roles: list[Role]
    kind: ProfileKind = Field(description="measured or estimated")
    source: str
    engine: str
    measured_at: AwareDatetime
    error_ratio: float = Field(description="median relative error at points held out")


class ProfileResource(ProfileSummary):
    """A profile."""

    profile: dict[str, JsonValue] = Field(description="as `poolwise profile run` writes it")


class ProfileList(Document):
    """Profiles without their tables."""

    in_use: list[ProfileSummary] = Field(description="of the specs in force")
    profiles: list[ProfileSummary] = Field(description="handed in, newest first")
    next: str | None = Field(default=None, description="cursor of the next page; null: the last")


@ROUTER.get("")
def get_profiles(
    *,
    service: ServiceParameter,
    request: Request,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=paging.MOST, description="at most so many")] = 50,
    cursor: CursorParameter = None,
) -> ProfileList:
    """The profiles of the specs in force, and those that were handed in, in pages."""
    found = _stored(service).profiles(limit=limit + 1, before=paging.before(cursor))
    rows, more = paging.page(found, limit)
    following = paging.cursor(rows[-1].seq) if more else None
    paging.link(request, response, following)
    return ProfileList(
        in_use=[summary_of(profile) for profile in _in_use(service).values()],
        profiles=[summary_of(_read(row.profile)) for row in rows],
        next=following,
    )


@ROUTER.get("/{profile_id}", responses=answers(404))
def get_profile(profile_id: str, service: ServiceParameter) -> ProfileResource:
    """One profile with its tables."""
    return _resource(profile_known(service, profile_id))


def profile_known(service: Service, profile_id: str) -> Profile:
    """A profile of a spec in force, or one that was handed in. Raises UnknownProfileError."""
    used = _in_use(service).get(profile_id)
    if used is not None:
        return used
    return _read(_stored(service).profile(profile_id).profile)


@ROUTER.post("", status_code=201, responses=answers(409), dependencies=[Once])
def post_profile(
    body: Annotated[dict[str, JsonValue], Body(openapi_examples=EXAMPLES)],
    service: ServiceParameter,
    by: Writer,
    response: Response,
) -> ProfileResource:
    """Hand in a profile, so that a spec may name it by its id; again changes nothing."""
    profile = profile_of(body, where="profile")
    if not profile.profile_id:
        raise HTTPException(422, "profile: it has no id")
    text = profile_document(profile).model_dump_json()
    _stored(service).add(profile.profile_id, text, by=by, at=service.now())
    response.headers["Location"] = f"/v1/profiles/{profile.profile_id}"
    return _resource(profile)


def _in_use(service: Service) -> dict[str, Profile]:
    """Those of the specs in force, by id."""
    return {
        profile.profile_id: profile
        for served in service.registry.all()
        for profile in served.deployment.spec.profiles
    }


def _stored(service: Service) -> StoredProfiles:
    return StoredProfiles(access=service.store.access)


def _read(text: str) -> Profile:
    return profile_of(json.loads(text), where="stored profile")


def summary_of(profile: Profile) -> ProfileSummary:
    """Whose profile it is and where it comes from."""
    source = profile.provenance
    return ProfileSummary(
        profile_id=profile.profile_id,
        model=profile.model,
        accelerator=profile.accelerator,
        tp=profile.tp,
        pp=profile.pp,
        dp=profile.dp,
        roles=sorted(profile.roles),
        kind=source.kind,
        source=source.source,
        engine=source.engine,
        measured_at=source.measured_at,
        error_ratio=source.error_ratio,
    )


def _resource(profile: Profile) -> ProfileResource:
    document = profile_document(profile).model_dump(mode="json")
    return ProfileResource.model_validate({**dict(summary_of(profile)), "profile": document})
