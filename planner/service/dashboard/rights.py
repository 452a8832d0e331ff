"""Who may see which page, and who may send which form: the least role, as of the REST route."""

from collections.abc import Mapping

from planner.service.api.rights import OPEN, RIGHTS, VIEWER, Rights
from planner.service.security.access import ANONYMOUS, AccessRole, Principal

PREFIX = "/dashboard"

PAGES: Mapping[str, AccessRole | None] = {
    # For those who have no session yet.
    "GET /": OPEN,
    "GET /dashboard": OPEN,
    "GET /dashboard/static/{file}": OPEN,
    "GET /dashboard/login": OPEN,
    "POST /dashboard/login": OPEN,
    "POST /dashboard/logout": OPEN,
    # What is known.
    "GET /dashboard/": VIEWER,
    "GET /dashboard/deployments/{name}": RIGHTS["GET /v1/deployments/{name}"],
    "GET /dashboard/deployments/{name}/now": RIGHTS["GET /v1/deployments/{name}"],
    "GET /dashboard/deployments/{name}/decisions": RIGHTS["GET /v1/deployments/{name}/decisions"],
    "GET /dashboard/plans": RIGHTS["GET /v1/plans"],
    "GET /dashboard/plans/{plan_id}": RIGHTS["GET /v1/plans/{plan_id}"],
    "GET /dashboard/plans/{plan_id}/progress": RIGHTS["GET /v1/plans/{plan_id}"],
    "GET /dashboard/jobs": RIGHTS["GET /v1/jobs"],
    "GET /dashboard/jobs/{job_id}": RIGHTS["GET /v1/jobs/{job_id}"],
    "GET /dashboard/jobs/{job_id}/progress": RIGHTS["GET /v1/jobs/{job_id}"],
    "GET /dashboard/reports/{job_id}": RIGHTS["GET /v1/reports/{job_id}"],
    "GET /dashboard/profiles": RIGHTS["GET /v1/profiles"],
    "GET /dashboard/profiles/{profile_id}": RIGHTS["GET /v1/profiles/{profile_id}"],
    "GET /dashboard/audit": RIGHTS["GET /v1/audit"],
    "GET /dashboard/deployments/{name}/what-if": RIGHTS["GET /v1/deployments/{name}"],
    # Questions, of which nothing is left but a job.
    "POST /dashboard/deployments/{name}/what-if": RIGHTS["POST /v1/what-ifs"],
    "POST /dashboard/deployments/{name}/report": RIGHTS["POST /v1/reports"],
    "POST /dashboard/plans/{plan_id}/replay": RIGHTS["POST /v1/simulations"],
    "POST /dashboard/jobs/{job_id}/cancel": RIGHTS["DELETE /v1/jobs/{job_id}"],
    # What the loop plans by, and what holds it.
    "POST /dashboard/deployments/{name}/plan": RIGHTS["POST /v1/plans"],
    "POST /dashboard/deployments/{name}/pause": RIGHTS["POST /v1/deployments/{name}/pause"],
    "POST /dashboard/deployments/{name}/resume": RIGHTS["POST /v1/deployments/{name}/resume"],
    "POST /dashboard/deployments/{name}/mode": RIGHTS["PUT /v1/deployments/{name}/mode"],
    # Decisions of persons, and what moves the fleet.
    "POST /dashboard/plans/{plan_id}/approve": RIGHTS["POST /v1/plans/{plan_id}/approve"],
    "POST /dashboard/plans/{plan_id}/reject": RIGHTS["POST /v1/plans/{plan_id}/reject"],
    "POST /dashboard/plans/{plan_id}/apply": RIGHTS["POST /v1/plans/{plan_id}/apply"],
    "POST /dashboard/plans/{plan_id}/rollback": RIGHTS["POST /v1/plans/{plan_id}/rollback"],
}

OF_PAGES = Rights(PAGES)


def may(principal: Principal | None, route: str) -> bool:
    """Whether a form should be shown: who is asked for a token to send it is shown none.

    Parameters
    ----------
    route : str
        As in the table.
    """
    needed = PAGES[route]
    if principal is None or needed is None:
        return needed is None
    if principal == ANONYMOUS:
        return route.startswith("GET ")
    return principal.role.may(needed)
