"""Profiles, and how far from them replicas are seen to be."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi import Response as FastResponse
from starlette.responses import Response

from planner.service.api import profiles as api
from planner.service.api.service import Service, ServiceParameter
from planner.service.dashboard.pages import page
from planner.service.dashboard.views import profiles as views

ROUTER = APIRouter(prefix="/profiles")

COMPARED = 300
"""Comparisons of what was seen with what was predicted that are drawn."""
OF_A_PAGE = 50


@ROUTER.get("")
def get_profiles(
    request: Request,
    service: ServiceParameter,
    cursor: Annotated[str | None, Query(max_length=400)] = None,
) -> Response:
    """Those that plans are made with, and those that were handed in."""
    found = api.get_profiles(
        service=service, request=request, response=FastResponse(), limit=OF_A_PAGE, cursor=cursor
    )
    calibrations = {
        served.name: served.deployment.store.calibrations(served.name).all()
        for served in service.registry.all()
    }
    used = {summary.profile_id for summary in found.in_use}

    def line(summary: api.ProfileSummary) -> views.ProfileLine:
        drifts = views.drifts_of(calibrations, summary.profile_id)
        return views.profile_line(summary, in_use=summary.profile_id in used, drifts=drifts)

    values = {
        "in_use": [line(summary) for summary in found.in_use],
        "others": [line(one) for one in found.profiles if one.profile_id not in used],
        "following": found.next or "",
        "later": cursor is not None,
    }
    return page(request, "profiles.html.j2", values)


@ROUTER.get("/{profile_id}")
def get_profile(request: Request, profile_id: str, service: ServiceParameter) -> Response:
    """One profile: where it comes from, what it says, and what is seen."""
    profile = api.profile_known(service, profile_id)
    using = _using(service, profile_id)
    calibrations = {
        name: service.store.calibrations(name).all() for name in service.registry.names()
    }
    charts = [
        (name, views.drift_chart(service.store.calibrations(name).comparisons(limit=COMPARED)))
        for name in using
    ]
    values = {
        "profile": views.profile_line(
            api.summary_of(profile),
            in_use=bool(using),
            drifts=views.drifts_of(calibrations, profile_id),
        ),
        "facts": views.profile_facts(profile),
        "speed": views.speed_table(profile),
        "notes": profile.provenance.notes,
        "charts": [(name, chart) for name, chart in charts if chart is not None],
        "using": using,
    }
    return page(request, "profile.html.j2", values)


def _using(service: Service, profile_id: str) -> list[str]:
    """Deployments whose spec in force plans with it."""
    return [
        served.name
        for served in service.registry.all()
        if any(one.profile_id == profile_id for one in served.deployment.spec.profiles)
    ]
