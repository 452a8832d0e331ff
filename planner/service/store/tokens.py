"""Bearer tokens by their hashes: whose they are, what they may do, and for how long."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, RowMapping, insert, select, update

from planner.domain.errors import TokenError, UnknownTokenError
from planner.domain.wording import counted
from planner.service.security.access import AccessRole, check_name
from planner.service.store import audit
from planner.service.store.database import queue_up, translated
from planner.service.store.instants import instant, stamp
from planner.service.store.tables import TOKENS

SHOWN = 8
"""Hexadecimal digits of a hash by which people tell tokens apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredToken:
    """What is known of a token.

    Parameters
    ----------
    token_id : str
        Beginning of its hash.
    expires_at, last_used_at, revoked_at : datetime or None
        None: never. `last_used_at` is exact to a minute.
    """

    token_id: str
    name: str
    role: AccessRole
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    def state(self, at: datetime) -> str:
        """`live`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= at else "live"


class StoredTokens:
    """The tokens of one database; every change is in the audit log, no token ever is."""

    def __init__(self, engine: Engine, where: str) -> None:
        self._engine = engine
        self._where = where

    def find(self, token_hash: str) -> StoredToken | None:
        """The token with this hash, live or not. Raises StoreError."""
        query = select(TOKENS).where(TOKENS.c.token_hash == token_hash)
        with translated(self._where), self._engine.connect() as raw:
            connection = raw.execution_options(reads_only=True)
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else _token(row)

    def all(self) -> tuple[StoredToken, ...]:
        """Every token that there ever was, by name and age. Raises StoreError."""
        query = select(TOKENS).order_by(TOKENS.c.name, TOKENS.c.created_at, TOKENS.c.token_hash)
        with translated(self._where), self._engine.connect() as raw:
            connection = raw.execution_options(reads_only=True)
            return tuple(_token(row) for row in connection.execute(query).mappings())

    def create(
        self,
        token_hash: str,
        *,
        name: str,
        role: AccessRole,
        at: datetime,
        by: str,
        expires_at: datetime | None = None,
    ) -> StoredToken:
        """Keep a token for a name that has none.

        Raises
        ------
        TokenError
            When the name is not usable, or has a live token already.
        """
        check_name(name)
        check_expiry(expires_at, at)
        with translated(self._where), self._engine.begin() as connection:
            queue_up(connection)
            if _live(connection, at, name=name):
                raise TokenError(
                    f"{name} has a token already: rotate it, or revoke it and create a new one"
                )
            made = _add(connection, token_hash, name=name, role=role, at=at, expires_at=expires_at)
            audit.add(connection, at, by, "token.create", name, detail=_described(made))
        return made

    def rotate(
        self,
        token_hash: str,
        *,
        name: str,
        at: datetime,
        by: str,
        overlap: timedelta,
        expires_at: datetime | None = None,
    ) -> StoredToken:
        """Give a name a new token of the same role; its old ones go on for the overlap at most.

        Parameters
        ----------
        expires_at : datetime or None
            Of the new one; None: it lasts as long from now as the newest old one was made to.

        Raises
        ------
        UnknownTokenError
            When the name has no live token.
        """
        check_expiry(expires_at, at)
        with translated(self._where), self._engine.begin() as connection:
            queue_up(connection)
            old = _known(connection, at, name)
            newest = _token(old[-1])
            if expires_at is None and newest.expires_at is not None:
                expires_at = at + (newest.expires_at - newest.created_at)
            made = _add(
                connection, token_hash, name=name, role=newest.role, at=at, expires_at=expires_at
            )
            ends_at = at + overlap
            for row in old:
                kept = row["expires_at"]
                values = {"expires_at": stamp(ends_at)} if overlap else {"revoked_at": stamp(at)}
                if not overlap or kept is None or instant(kept) > ends_at:
                    _change(connection, row["token_hash"], values)
            detail = f"{_described(made)}; old ones end {stamp(ends_at)}"
            audit.add(connection, at, by, "token.rotate", name, detail=detail)
        return made

    def revoke(self, *, name: str, at: datetime, by: str) -> int:
        """End all tokens of a name; how many there were.

        Raises
        ------
        UnknownTokenError
            When it has no live one.
        TokenError
            When nobody would be left who may make tokens.
        """
        with translated(self._where), self._engine.begin() as connection:
            queue_up(connection)
            rows = _known(connection, at, name)
            admins = {row["name"] for row in _live(connection, at) if row["role"] == "admin"}
            if admins == {name}:
                raise TokenError(
                    f"{name} is the only admin left: create another one first, or rotate its "
                    "token without an overlap"
                )
            for row in rows:
                _change(connection, row["token_hash"], {"revoked_at": stamp(at)})
            audit.add(
                connection, at, by, "token.revoke", name, detail=f"{counted(len(rows), 'token')}"
            )
        return len(rows)

    def add_first(self, token_hash: str, *, name: str, at: datetime) -> bool:
        """Keep an admin's token where there never was one; False where another was faster."""
        with translated(self._where), self._engine.begin() as connection:
            queue_up(connection)
            if connection.execute(select(TOKENS.c.token_hash).limit(1)).first() is not None:
                return False
            made = _add(connection, token_hash, name=name, role=AccessRole.ADMIN, at=at)
            audit.add(connection, at, "serve", "token.create", name, detail=_described(made))
        return True

    def replace_all(self, token_hash: str, *, name: str, at: datetime) -> None:
        """Shut out every token but this new one, which is an admin's."""
        with translated(self._where), self._engine.begin() as connection:
            queue_up(connection)
            for row in _live(connection, at):
                _change(connection, row["token_hash"], {"revoked_at": stamp(at)})
            made = _add(connection, token_hash, name=name, role=AccessRole.ADMIN, at=at)
            audit.add(connection, at, "serve", "token.replace", name, detail=_described(made))

    def note_uses(self, used: Mapping[str, datetime]) -> None:
        """Keep when tokens, by their hashes, were last used; no audit line, they are too many."""
        with translated(self._where), self._engine.begin() as connection:
            queue_up(connection)
            for token_hash, at in used.items():
                _change(connection, token_hash, {"last_used_at": stamp(at)})


def check_expiry(expires_at: datetime | None, at: datetime) -> None:
    """Raise TokenError for a token that would never be live."""
    if expires_at is not None and expires_at <= at:
        raise TokenError(f"a token must end after now, not at {expires_at.isoformat()}")


def _live(connection: Connection, at: datetime, *, name: str | None = None) -> list[RowMapping]:
    """Rows of the tokens that are live, of a name or all, oldest first."""
    query = (
        select(TOKENS)
        .where(TOKENS.c.revoked_at.is_(None))
        .where(TOKENS.c.expires_at.is_(None) | (TOKENS.c.expires_at > stamp(at)))
        .order_by(TOKENS.c.created_at, TOKENS.c.token_hash)
    )
    if name is not None:
        query = query.where(TOKENS.c.name == name)
    return list(connection.execute(query).mappings())


def _known(connection: Connection, at: datetime, name: str) -> list[RowMapping]:
    rows = _live(connection, at, name=name)
    if not rows:
        raise UnknownTokenError(f"{name} has no token that is live; `poolwise token list` has all")
    return rows


def _add(
    connection: Connection,
    token_hash: str,
    *,
    name: str,
    role: AccessRole,
    at: datetime,
    expires_at: datetime | None = None,
) -> StoredToken:
    connection.execute(
        insert(TOKENS).values(
            token_hash=token_hash,
            name=name,
            role=role.value,
            created_at=stamp(at),
            expires_at=None if expires_at is None else stamp(expires_at),
        )
    )
    query = select(TOKENS).where(TOKENS.c.token_hash == token_hash)
    return _token(connection.execute(query).mappings().one())


def _change(connection: Connection, token_hash: str, values: Mapping[str, str]) -> None:
    connection.execute(update(TOKENS).where(TOKENS.c.token_hash == token_hash).values(values))


def _token(row: RowMapping) -> StoredToken:
    return StoredToken(
        token_id=row["token_hash"][:SHOWN],
        name=row["name"],
        role=AccessRole(row["role"]),
        created_at=instant(row["created_at"]),
        expires_at=_instant(row["expires_at"]),
        last_used_at=_instant(row["last_used_at"]),
        revoked_at=_instant(row["revoked_at"]),
    )


def _instant(text: str | None) -> datetime | None:
    return None if text is None else instant(text)


def _described(token: StoredToken) -> str:
    ends = "never expires" if token.expires_at is None else f"expires {stamp(token.expires_at)}"
    return f"{token.role} {token.token_id}, {ends}"
