"""The name of a database: whoever steers a cluster from it writes under that."""

import secrets

from sqlalchemy import Connection, insert, select

from planner.domain.errors import StoreError
from planner.service.store.database import Access
from planner.service.store.tables import INSTANCES

_ONLY = 1


def name(connection: Connection) -> str | None:
    """The name, None before it was asked for first."""
    found = connection.execute(select(INSTANCES.c.name)).scalar_one_or_none()
    return None if found is None else str(found)


def give(connection: Connection) -> None:
    """Give the database a name, unless it has one."""
    if name(connection) is None:
        connection.execute(insert(INSTANCES).values(id=_ONLY, name=secrets.token_hex(4)))


def named(access: Access) -> str:
    """The name, given now if there was none.

    Raises
    ------
    StoreError
        When there is none and none can be written.
    """
    with access.reading() as connection:
        found = name(connection)
    if found is None:
        try:
            with access.writing() as connection:
                give(connection)
        except StoreError:  # another replica was first, or it fails again below
            pass
        with access.reading() as connection:
            found = name(connection)
    if found is None:
        raise StoreError(f"the database {access.where} keeps no name: see whether it is writable")
    return found
