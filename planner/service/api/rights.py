"""Who may call what: every route of the API, and the least role that may.

This is the only place where that is decided for programs; pages have a table of their own, in
`planner.service.dashboard.rights`. A route that does not stand in one of them answers 404 to
everybody, and a test fails until it does. `docs/security.md` shows the same tables.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.routing import compile_path

from planner.service.security.access import AccessRole

OPEN = None
"""Whoever reaches the address; for probes, Prometheus, and those who have no token yet."""
VIEWER, OPERATOR = AccessRole.VIEWER, AccessRole.OPERATOR
APPROVER, ADMIN = AccessRole.APPROVER, AccessRole.ADMIN

RIGHTS: Mapping[str, AccessRole | None] = {
    # Probes and Prometheus. /metrics tells counts and cost, no plan and no name of a person.
    "GET /healthz": OPEN,
    "GET /readyz": OPEN,
    "GET /metrics": OPEN,
    "GET /openapi.json": OPEN,
    # What is known.
    "GET /v1/whoami": VIEWER,
    "GET /v1/leader": VIEWER,
    "GET /v1/plans": VIEWER,
    "GET /v1/plans/{plan_id}": VIEWER,
    "GET /v1/plans/{plan_id}/approvals": VIEWER,
    "GET /v1/deployments": VIEWER,
    "GET /v1/deployments/{name}": VIEWER,
    "GET /v1/deployments/{name}/slo": VIEWER,
    "GET /v1/deployments/{name}/fleet": VIEWER,
    "GET /v1/deployments/{name}/decisions": VIEWER,
    "GET /v1/deployments/{name}/decisions/{decision_id}": VIEWER,
    "GET /v1/deployments/{name}/directives": VIEWER,
    "GET /v1/deployments/{name}/forecast": VIEWER,
    "GET /v1/profiles": VIEWER,
    "GET /v1/profiles/{profile_id}": VIEWER,
    "GET /v1/jobs": VIEWER,
    "GET /v1/jobs/{job_id}": VIEWER,
    "GET /v1/jobs/{job_id}/events": VIEWER,
    # Questions: they cost time, and leave nothing behind but, where they take long, a job.
    "POST /v1/recommendations": VIEWER,
    "POST /v1/forecasts": VIEWER,
    "POST /v1/backtests": VIEWER,
    "POST /v1/simulations": VIEWER,
    "POST /v1/what-ifs": VIEWER,
    "POST /v1/reports": VIEWER,
    "GET /v1/reports/{job_id}": VIEWER,
    "DELETE /v1/jobs/{job_id}": VIEWER,  # one's own; those of others as an operator
    # What the loop plans by, and what moves the fleet once it is approved.
    "PUT /v1/deployments/{name}/fleet": OPERATOR,
    "POST /v1/deployments/{name}/observations": OPERATOR,
    "PUT /v1/deployments/{name}/backlog": OPERATOR,
    "POST /v1/profiles": OPERATOR,
    "POST /v1/plans": OPERATOR,
    "POST /v1/plans/{plan_id}/apply": OPERATOR,
    "POST /v1/plans/{plan_id}/rollback": OPERATOR,
    # What holds the loop, for a while.
    "POST /v1/deployments/{name}/pause": OPERATOR,
    "POST /v1/deployments/{name}/resume": OPERATOR,
    "PUT /v1/deployments/{name}/pins/{pool}": OPERATOR,
    "DELETE /v1/deployments/{name}/pins/{pool}": OPERATOR,
    # Decisions of persons, and who took which.
    "POST /v1/plans/{plan_id}/approve": APPROVER,
    "POST /v1/plans/{plan_id}/reject": APPROVER,
    "PUT /v1/deployments/{name}": APPROVER,  # under a new name an admin
    "PUT /v1/deployments/{name}/mode": APPROVER,
    "DELETE /v1/deployments/{name}/mode": APPROVER,
    "GET /v1/audit": APPROVER,
    # Which deployments there are.
    "DELETE /v1/deployments/{name}": ADMIN,
    # Who may do all this.
    "GET /v1/tokens": ADMIN,
    "POST /v1/tokens": ADMIN,
    "POST /v1/tokens/{token_name}/rotate": ADMIN,
    "POST /v1/tokens/{token_name}/revoke": ADMIN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """A route that stands in the table.

    Parameters
    ----------
    route : str
        As in the table.
    needed : AccessRole or None
        The least role; None: no token is asked for.
    """

    route: str
    needed: AccessRole | None


@dataclass(frozen=True, slots=True)
class Rights:
    """A table of routes with the least role that may call each."""

    table: Mapping[str, AccessRole | None]
    _compiled: tuple[tuple[str, re.Pattern[str], Right], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        compiled = tuple(
            (method, compile_path(path)[0], Right(route=route, needed=needed))
            for route, needed in self.table.items()
            for method, path in (route.split(" "),)
        )
        object.__setattr__(self, "_compiled", compiled)

    def right_to(self, method: str, path: str) -> Right | None:
        """What a request needs; None: no such route. Who may GET may ask for the headers alone."""
        wanted = "GET" if method == "HEAD" else method
        for known, pattern, right in self._compiled:
            if known == wanted and pattern.match(path):
                return right
        return None

    def methods_of(self, path: str) -> tuple[str, ...]:
        """With which methods a path may be called; none: there is no such path."""
        return tuple(method for method, pattern, _ in self._compiled if pattern.match(path))


OF_API = Rights(RIGHTS)
