"""Who asks, and tokens: make, look, rotate, revoke."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Body, HTTPException
from fastapi.openapi.models import Example
from pydantic import AwareDatetime, Field

from planner.service.api.problems import answers
from planner.service.api.service import PrincipalParameter, ServiceParameter
from planner.service.documents.document import Document, Number
from planner.service.documents.tokens import NewTokenDocument, TokensDocument, token_document
from planner.service.security.access import AccessRole, Principal
from planner.service.security.tokens import hash_of, new_token

ROUTER = APIRouter(prefix="/v1", tags=["access"])
LONGEST_S = 10 * 366 * 86_400
TOKEN_EXAMPLES = {
    "program": Example(
        summary="For a program, for ninety days",
        value={"name": "ci", "role": "operator", "expires_s": 7_776_000},
    )
}
ROTATION_EXAMPLES = {
    "hour": Example(summary="The old one goes on for an hour", value={"overlap_s": 3600})
}
Seconds = Annotated[float, Number, Field(gt=0, le=LONGEST_S)]


class Whoami(Document):
    """Whose token was sent."""

    name: str
    role: AccessRole
    expires_at: AwareDatetime | None = Field(description="of the token; null: never")
    by_token: bool = Field(description="false: this server asks for none")


class TokenBody(Document):
    """Whose token it is to be."""

    name: str = Field(max_length=63, description="one person's or program's; also after rotation")
    role: AccessRole
    expires_s: Seconds | None = Field(
        default=None, description="it ends after so long, seconds; left out: never"
    )


class RotationBody(Document):
    """How one token follows another."""

    overlap_s: Annotated[float, Number, Field(ge=0, le=LONGEST_S)] = Field(
        default=86_400, description="the old one goes on for so long, seconds; 0: it ends at once"
    )
    expires_s: Seconds | None = Field(
        default=None, description="the new one ends after so long; left out: as the old one did"
    )


class Revoked(Document):
    """How many tokens were ended."""

    tokens: int


@ROUTER.get("/whoami")
def whoami(principal: PrincipalParameter) -> Whoami:
    """Who you are here, and what you may do."""
    return Whoami(
        name=principal.name,
        role=principal.role,
        expires_at=principal.expires_at,
        by_token=principal.by_token,
    )


@ROUTER.get("/tokens")
def get_tokens(service: ServiceParameter) -> TokensDocument:
    """Every token, whose it is, what it may do, and when it was last used."""
    now = service.now()
    tokens = service.store.tokens().all()
    return TokensDocument(tokens=[token_document(token, at=now) for token in tokens])


@ROUTER.post("/tokens", status_code=201)
def post_token(
    body: Annotated[TokenBody, Body(openapi_examples=TOKEN_EXAMPLES)],
    service: ServiceParameter,
    principal: PrincipalParameter,
) -> NewTokenDocument:
    """Make a token for a name that has none; it is shown in this answer only."""
    _check_asked(principal)
    token, now = new_token(), service.now()
    made = service.store.tokens().create(
        hash_of(token),
        name=body.name,
        role=body.role,
        at=now,
        by=principal.name,
        expires_at=None if body.expires_s is None else now + timedelta(seconds=body.expires_s),
    )
    return NewTokenDocument(token=token, **dict(token_document(made, at=now)))


@ROUTER.post("/tokens/{token_name}/rotate", status_code=201, responses=answers(404))
def rotate_token(
    token_name: str,
    service: ServiceParameter,
    principal: PrincipalParameter,
    body: Annotated[RotationBody | None, Body(openapi_examples=ROTATION_EXAMPLES)] = None,
) -> NewTokenDocument:
    """Make the next token of a name; it is shown in this answer only."""
    _check_asked(principal)
    asked = body or RotationBody()
    token, now = new_token(), service.now()
    made = service.store.tokens().rotate(
        hash_of(token),
        name=token_name,
        at=now,
        by=principal.name,
        overlap=timedelta(seconds=asked.overlap_s),
        expires_at=None if asked.expires_s is None else now + timedelta(seconds=asked.expires_s),
    )
    return NewTokenDocument(token=token, **dict(token_document(made, at=now)))


@ROUTER.post("/tokens/{token_name}/revoke", responses=answers(404))
def revoke_token(
    token_name: str, service: ServiceParameter, principal: PrincipalParameter
) -> Revoked:
    """End all tokens of a name."""
    _check_asked(principal)
    tokens = service.store.tokens()
    return Revoked(tokens=tokens.revoke(name=token_name, at=service.now(), by=principal.name))


def _check_asked(principal: Principal) -> None:
    """A server that asks nobody must not give out tokens that last longer than it does."""
    if not principal.by_token:
        raise HTTPException(
            403, "--insecure-local gives out no tokens: use `poolwise token` on its machine"
        )
