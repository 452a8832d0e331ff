"""Domain values as JSON documents and back: the contract with everything outside."""

from planner.service.documents.fleet import fleet_document, fleet_from, fleet_of, read_fleet
from planner.service.documents.forecast import forecast_document, forecast_of, read_forecast
from planner.service.documents.history import (
    history_end,
    read_history,
    window_document,
    windows_of,
)
from planner.service.documents.plan import plan_document, plan_of, read_plan
from planner.service.documents.rollout import (
    approval_document,
    diff_document,
    diff_of,
    finding_documents,
)

__all__ = [
    "approval_document",
    "diff_document",
    "diff_of",
    "finding_documents",
    "fleet_document",
    "fleet_from",
    "fleet_of",
    "forecast_document",
    "forecast_of",
    "history_end",
    "plan_document",
    "plan_of",
    "read_fleet",
    "read_forecast",
    "read_history",
    "read_plan",
    "window_document",
    "windows_of",
]
