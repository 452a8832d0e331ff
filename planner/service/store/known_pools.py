"""Pools as Poolwise left them, or first saw them: who else changed them shows beside that."""

from collections.abc import Iterable

from sqlalchemy import Connection, RowMapping, delete, insert, select

from planner.service.store.instants import instant, stamp
from planner.service.store.records import BrokenTemplate, KnownPool
from planner.service.store.tables import KNOWN_POOLS


def put(connection: Connection, deployment: str, pools: Iterable[KnownPool]) -> None:
    """Keep these instead of all that were kept."""
    connection.execute(delete(KNOWN_POOLS).where(KNOWN_POOLS.c.deployment == deployment))
    rows = [
        {
            "deployment": deployment,
            "pool": one.pool,
            "replicas": one.replicas,
            "late": one.late,
            "edited_at": None if one.edited_at is None else stamp(one.edited_at),
            "edited_from": one.edited_from,
            "broken_template": None if one.broken is None else one.broken.template,
            "broken_times": 0 if one.broken is None else one.broken.times,
            "broken_at": None if one.broken is None else stamp(one.broken.at),
            "broken_why": None if one.broken is None else one.broken.why,
        }
        for one in pools
    ]
    if rows:
        connection.execute(insert(KNOWN_POOLS), rows)


def known(connection: Connection, deployment: str) -> dict[str, KnownPool]:
    """What is kept, by label; nothing before the fleet was seen first."""
    query = select(KNOWN_POOLS).where(KNOWN_POOLS.c.deployment == deployment)
    return {
        row["pool"]: KnownPool(
            pool=row["pool"],
            replicas=row["replicas"],
            late=row["late"],
            edited_at=None if row["edited_at"] is None else instant(row["edited_at"]),
            edited_from=row["edited_from"],
            broken=_broken(row),
        )
        for row in connection.execute(query).mappings()
    }


def _broken(row: RowMapping) -> BrokenTemplate | None:
    if row["broken_template"] is None:
        return None
    return BrokenTemplate(
        template=row["broken_template"],
        times=row["broken_times"],
        at=instant(row["broken_at"]),
        why=row["broken_why"],
    )
