"""What Poolwise remembers: SQLite by default, any SQLAlchemy database by URL."""

from planner.service.store.records import (
    AuditEntry,
    DecisionRecord,
    ForecastOutcome,
    PlanRecord,
    StoredFleet,
    StoredWindow,
)
from planner.service.store.store import Store, open_store

__all__ = [
    "AuditEntry",
    "DecisionRecord",
    "ForecastOutcome",
    "PlanRecord",
    "Store",
    "StoredFleet",
    "StoredWindow",
    "open_store",
]
