"""What Poolwise remembers: SQLite by default, any SQLAlchemy database by URL."""

from planner.service.keeping import Keeping
from planner.service.store.records import (
    AuditEntry,
    BegunStep,
    BrokenTemplate,
    DecisionRecord,
    ForecastOutcome,
    GateHour,
    KnownPool,
    PlanRecord,
    StoredFleet,
    StoredWindow,
)
from planner.service.store.store import Store, open_store

__all__ = [
    "AuditEntry",
    "BegunStep",
    "BrokenTemplate",
    "DecisionRecord",
    "ForecastOutcome",
    "GateHour",
    "Keeping",
    "KnownPool",
    "PlanRecord",
    "Store",
    "StoredFleet",
    "StoredWindow",
    "open_store",
]
