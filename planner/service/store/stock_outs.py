"""Accelerators that a deployment could not have for a while."""

from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from actuators.kubernetes.stock_out import StockOut
from planner.service.store.instants import instant, stamp
from planner.service.store.tables import STOCK_OUTS


def add(connection: Connection, deployment: str, found: StockOut, *, at: datetime) -> None:
    """Keep a shortage instead of what was known of its accelerator; what is over goes, too."""
    over = STOCK_OUTS.c.until_at <= stamp(at)
    same = STOCK_OUTS.c.accelerator == found.accelerator
    mine = STOCK_OUTS.c.deployment == deployment
    connection.execute(delete(STOCK_OUTS).where(mine & (over | same)))
    connection.execute(
        insert(STOCK_OUTS).values(
            deployment=deployment,
            accelerator=found.accelerator,
            usable=found.usable,
            until_at=stamp(found.until_at),
        )
    )


def lasting(connection: Connection, deployment: str, *, at: datetime) -> tuple[StockOut, ...]:
    """The shortages that are not over yet, oldest first."""
    query = (
        select(STOCK_OUTS)
        .where(STOCK_OUTS.c.deployment == deployment, STOCK_OUTS.c.until_at > stamp(at))
        .order_by(STOCK_OUTS.c.seq)
    )
    return tuple(
        StockOut(
            accelerator=row["accelerator"], usable=row["usable"], until_at=instant(row["until_at"])
        )
        for row in connection.execute(query).mappings()
    )
