"""Decisions of the loop as the API and the CLI show them."""

from collections.abc import Mapping
from hashlib import sha256

from pydantic import AwareDatetime, Field

from planner.service.documents.document import Document
from planner.service.loop.replaying import PARTS, VERSIONS, Replay, versions_in
from planner.service.store import DecisionRecord


class DecisionDocument(Document):
    """What a tick of the loop came to."""

    decision_id: int
    decided_at: AwareDatetime
    plan_id: str | None
    outcome: str
    reason: str


class DecisionList(Document):
    """Decisions of the loop, newest first."""

    decisions: list[DecisionDocument]
    next: str | None = Field(default=None, description="cursor of the next page; null: the last")


class ReplayDocument(Document):
    """What came of making a decision once more."""

    decision_id: int
    same: bool = Field(description="the same answer in all but elapsed times")
    differences: list[str] = Field(description="field by field, before and now; empty: none")
    versions: list[str] = Field(description="what is of another version than when it was decided")


class RecordedDecisionDocument(DecisionDocument):
    """A decision with what it was made from."""

    replayable: bool = Field(description="false: what it was made from was not kept, or is gone")
    inputs: dict[str, str] = Field(description="SHA-256 of each part that it was made from")
    versions: dict[str, str] = Field(description="what decided, by name and version")
    parts: dict[str, str] | None = Field(
        default=None, description="the parts themselves, for `poolwise replay-decision`"
    )
    replay: ReplayDocument | None = Field(default=None, description="where it was asked for")


def decision_document(record: DecisionRecord) -> DecisionDocument:
    """A decision."""
    return DecisionDocument.model_validate(_fields(record))


def replay_document(decision_id: int, replay: Replay) -> ReplayDocument:
    """What came of a replay."""
    return ReplayDocument(
        decision_id=decision_id,
        same=replay.same,
        differences=list(replay.differences),
        versions=list(replay.versions),
    )


def recorded_document(
    record: DecisionRecord,
    parts: Mapping[str, str],
    *,
    whole: bool = False,
    replay: Replay | None = None,
) -> RecordedDecisionDocument:
    """A decision with hashes of its parts; `whole`: with the parts too."""
    return RecordedDecisionDocument(
        **_fields(record),
        replayable=all(part in parts for part in PARTS),
        inputs={p: sha256(parts[p].encode()).hexdigest() for p in PARTS if p in parts},
        versions=versions_in(parts[VERSIONS]) if VERSIONS in parts else {},
        parts=dict(parts) if whole else None,
        replay=None if replay is None else replay_document(record.decision_id, replay),
    )


def _fields(record: DecisionRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in DecisionDocument.model_fields}
