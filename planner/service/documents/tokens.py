"""Tokens as people and programs see them: never the token itself but once, when it is made."""

from datetime import datetime

from pydantic import AwareDatetime, Field

from planner.service.documents.document import Document
from planner.service.security.access import AccessRole
from planner.service.store.tokens import StoredToken


class TokenDocument(Document):
    """What is known of a token."""

    token_id: str = Field(description="beginning of its hash, to tell tokens apart")
    name: str
    role: AccessRole
    state: str = Field(description="live, expired or revoked")
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = Field(description="null: never")
    last_used_at: AwareDatetime | None = Field(description="to a minute; null: never")
    revoked_at: AwareDatetime | None


class NewTokenDocument(TokenDocument):
    """A token that was just made."""

    token: str = Field(description="shown only now")


class TokensDocument(Document):
    """Tokens, by name and age."""

    tokens: list[TokenDocument]


def token_document(token: StoredToken, *, at: datetime) -> TokenDocument:
    """A token as it stands at an instant."""
    return TokenDocument(
        token_id=token.token_id,
        name=token.name,
        role=token.role,
        state=token.state(at),
        created_at=token.created_at,
        expires_at=token.expires_at,
        last_used_at=token.last_used_at,
        revoked_at=token.revoked_at,
    )
