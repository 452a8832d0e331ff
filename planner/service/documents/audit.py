"""The audit log as people and programs see it."""

from pydantic import AwareDatetime, Field

from planner.service.documents.document import Document
from planner.service.store import Store


class AuditLine(Document):
    """Who did what; its hash covers all of it and the line before."""

    seq: int
    at: AwareDatetime
    actor: str
    action: str = Field(description="such as plan.approve, token.create, access.refuse")
    subject: str
    detail: str
    prev_hash: str
    hash: str


class AuditPage(Document):
    """Lines of the audit log."""

    lines: list[AuditLine]
    before: int | None = Field(description="ask for the next page with it; null: there is none")


class AuditCheckDocument(Document):
    """Whether the audit log is as it was written."""

    rows: int = Field(description="lines in order")
    head: str = Field(description="hash of the last of them; keep it elsewhere")
    broken_seq: int | None = Field(description="the first line that is not in order")
    broken: str = Field(description="what is wrong; empty: nothing")


def audit_page(store: Store, *, limit: int, before: int | None) -> AuditPage:
    """The newest lines before one, newest first."""
    entries = store.audit(limit=limit + 1, before=before)
    shown = entries[:limit]
    return AuditPage(
        lines=[AuditLine.model_validate(entry) for entry in shown],
        before=shown[-1].seq if len(entries) > limit else None,
    )
