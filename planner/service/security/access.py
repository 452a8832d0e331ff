"""Who may do what: access roles, and the names of those who hold tokens.

A name stands for one person or one program. It stays the same when the token is rotated, so that
whoever asked for a plan is recognised when it is to be approved, whichever token is sent.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from planner.domain.errors import TokenError

NAME = re.compile(r"[a-z0-9]([a-z0-9._@+-]{0,61}[a-z0-9])?")
RESERVED = frozenset(
    {"policy", "serve", "local", "loop", "gate", "guards", "metrics", "poolwise", "anonymous"}
)
"""Names under which Poolwise itself acts; a person with one would be taken for it."""


class AccessRole(StrEnum):
    """What the holder of a token may do; each role may all that those before it may.

    VIEWER: read, and ask questions of which nothing is stored. OPERATOR: make plans, hand in what
    was observed, apply and roll back. APPROVER: approve and reject, replace the spec, read the
    audit log. ADMIN: tokens.
    """

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"

    def may(self, needed: "AccessRole") -> bool:
        """Whether this role is the one needed, or one above it."""
        order = tuple(AccessRole)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who sends a request.

    Parameters
    ----------
    expires_at : datetime or None
        Of the token; None: never.
    by_token : bool
        False: nobody asked for one (`--insecure-local`, `--anonymous-reads`).
    """

    name: str
    role: AccessRole
    expires_at: datetime | None = None
    by_token: bool = True


LOCAL = Principal(name="local", role=AccessRole.ADMIN, by_token=False)
"""Whoever reaches a server that was started with `--insecure-local`."""
ANONYMOUS = Principal(name="anonymous", role=AccessRole.VIEWER, by_token=False)
"""Whoever reads from a server that was started with `--anonymous-reads`."""


def check_name(name: str) -> str:
    """A name that a new token may have.

    Raises
    ------
    TokenError
        When it could be mistaken for another one, or for Poolwise itself.
    """
    if NAME.fullmatch(name) is None:
        raise TokenError(
            f"{name!r} is no name for a token: 1 to 63 lower-case letters, digits and . _ @ + -, "
            "beginning and ending with a letter or digit, such as ann or ann@example.org"
        )
    if name in RESERVED:
        raise TokenError(f"{name!r} is the name under which Poolwise itself acts: take another one")
    return name
