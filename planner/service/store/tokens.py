"""Bearer tokens by their hashes."""

from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from planner.service.store import audit
from planner.service.store.instants import stamp
from planner.service.store.tables import TOKENS


def name_of(connection: Connection, token_hash: str) -> str | None:
    """Whose token has this hash, or None."""
    query = select(TOKENS.c.name).where(TOKENS.c.token_hash == token_hash)
    return connection.execute(query).scalar_one_or_none()


def add_first(connection: Connection, token_hash: str, *, name: str, at: datetime) -> bool:
    """Keep a token where there is none yet; False where another process was faster."""
    if connection.execute(select(TOKENS.c.token_hash).limit(1)).first() is not None:
        return False
    _add(connection, token_hash, name=name, at=at)
    audit.add(connection, at, "serve", "token.create", name)
    return True


def replace_all(connection: Connection, token_hash: str, *, name: str, at: datetime) -> None:
    """Shut out every token but this new one."""
    connection.execute(delete(TOKENS))
    _add(connection, token_hash, name=name, at=at)
    audit.add(connection, at, "serve", "token.replace", name)


def _add(connection: Connection, token_hash: str, *, name: str, at: datetime) -> None:
    connection.execute(
        insert(TOKENS).values(token_hash=token_hash, name=name, created_at=stamp(at))
    )
