"""The newest backlog of each model; older ones are of no use to anybody."""

from sqlalchemy import Connection, delete, insert, select

from planner.autoscale.backlog import Backlog
from planner.service.documents.backlog import BacklogDocument, backlog_document, backlog_of
from planner.service.store.instants import stamp
from planner.service.store.tables import BACKLOGS


def put(connection: Connection, deployment: str, backlog: Backlog) -> None:
    """Keep a backlog instead of an older one."""
    mine = (BACKLOGS.c.deployment == deployment) & (BACKLOGS.c.model == backlog.model)
    kept = connection.execute(select(BACKLOGS.c.observed_at).where(mine)).scalar_one_or_none()
    if kept is not None and kept > stamp(backlog.observed_at):
        return
    connection.execute(delete(BACKLOGS).where(mine))
    connection.execute(
        insert(BACKLOGS).values(
            deployment=deployment,
            model=backlog.model,
            observed_at=stamp(backlog.observed_at),
            backlog=backlog_document(backlog).model_dump_json(),
        )
    )


def newest(connection: Connection, deployment: str, model: str) -> Backlog | None:
    """The newest backlog of a model, or None."""
    mine = (BACKLOGS.c.deployment == deployment) & (BACKLOGS.c.model == model)
    text = connection.execute(select(BACKLOGS.c.backlog).where(mine)).scalar_one_or_none()
    if text is None:
        return None
    return backlog_of(BacklogDocument.model_validate_json(text), model=model)
