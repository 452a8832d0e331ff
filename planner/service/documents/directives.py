"""Orders of people at run time, as the API and the CLI show them."""

from typing import Literal

from pydantic import Field

from planner.domain.guards import Pause
from planner.domain.spec import LoopMode
from planner.service.documents.document import Document, Instant, ReplicaCount
from planner.service.loop.directives import Standing
from planner.service.store.directives import Directive, DirectiveKind

LONGEST_REASON = 2_000


class DirectiveDocument(Document):
    """One order that is in force."""

    kind: DirectiveKind
    subject: str = Field(description="pause: in or out; pin: the pool's label; mode: empty")
    value: str = Field(description="pin: replicas; mode: the mode; pause: empty")
    reason: str
    set_by: str
    set_at: Instant
    until_at: Instant | None = Field(description="null: until it is taken back")
    sentence: str


class StandingDocument(Document):
    """What people ordered at run time, and what is in force with the spec's own settings."""

    deployment: str
    mode: LoopMode = Field(description="in force: as ordered, or as the spec says")
    mode_of_spec: LoopMode
    paused: Pause = Field(description="as ordered")
    paused_by_spec: Pause
    directives: list[DirectiveDocument] = Field(description="in force, oldest first")


class OrderBody(Document):
    """Why something is ordered, and for how long."""

    until_at: Instant | None = Field(
        default=None, description="it holds no longer from then on; left out: until taken back"
    )
    reason: str = Field(default="", max_length=LONGEST_REASON)


class PauseBody(OrderBody):
    """What is paused."""

    what: Literal[Pause.IN, Pause.OUT, Pause.ALL] = Field(
        default=Pause.ALL, description="in: no capacity goes; out: none comes; all: neither"
    )


class ResumeBody(Document):
    """What goes on."""

    what: Literal[Pause.IN, Pause.OUT, Pause.ALL] = Pause.ALL


class PinBody(OrderBody):
    """How many replicas a pool has, whatever plans want."""

    replicas: ReplicaCount


class ModeBody(OrderBody):
    """The loop's mode, whatever the spec says."""

    mode: LoopMode


def directive_document(directive: Directive) -> DirectiveDocument:
    """One order."""
    return DirectiveDocument.model_validate(directive)


def standing_document(
    deployment: str, standing: Standing, *, mode: LoopMode, paused: Pause
) -> StandingDocument:
    """All that is in force; `mode` and `paused` are the spec's."""
    return StandingDocument(
        deployment=deployment,
        mode=standing.mode or mode,
        mode_of_spec=mode,
        paused=standing.paused,
        paused_by_spec=paused,
        directives=[directive_document(one) for one in standing.directives],
    )
