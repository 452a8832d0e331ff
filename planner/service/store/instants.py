"""Instants as the database has them: UTC text that sorts by time."""

from datetime import UTC, datetime


def stamp(moment: datetime) -> str:
    """ISO 8601 with microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def instant(text: str) -> datetime:
    """The instant that a stamp stands for."""
    return datetime.fromisoformat(text)
