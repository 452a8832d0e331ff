"""Announced events, such as a launch, as the spec, the API and the CLI write them."""

from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import Field, model_validator

from planner.domain.forecast import LARGEST_EVENT_RATIO, KnownEvent
from planner.service.documents.document import Document, Instant, Number

MOST_EVENTS = 1_000
"""Of one deployment; more are a calendar of something else."""

ClassName = Annotated[str, Field(min_length=1, max_length=200)]


class KnownEventDocument(Document):
    """Something that people know and no history tells, in [start_at, end_at)."""

    name: ClassName = Field(description="for people, such as launch")
    start_at: Instant = Field(description="ISO 8601 with a time zone")
    end_at: Instant = Field(description="ISO 8601 with a time zone, after start_at")
    rate_ratio: Annotated[float, Number] = Field(
        ge=0,
        le=LARGEST_EVENT_RATIO,
        description="requests during the event over those without it; 2: twice as many, 0: none",
    )
    request_class: ClassName | None = Field(
        default=None, description="the request class that it concerns; left out: all"
    )

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        if not self.end_at > self.start_at:
            raise ValueError(
                f"end_at ({self.end_at.isoformat()}) must be after start_at "
                f"({self.start_at.isoformat()})"
            )
        return self

    def event(self) -> KnownEvent:
        """The event as a value."""
        return KnownEvent(
            name=self.name,
            start_at=self.start_at,
            end_at=self.end_at,
            rate_ratio=self.rate_ratio,
            request_class=self.request_class,
        )


def known_events(documents: Iterable[KnownEventDocument]) -> tuple[KnownEvent, ...]:
    """The events that documents describe."""
    return tuple(document.event() for document in documents)
