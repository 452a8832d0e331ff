"""What one check came to."""

from enum import StrEnum

from pydantic import Field

from planner.service.documents.document import Document


class Health(StrEnum):
    """How a check ended; only `failed` makes the exit status 1."""

    GOOD = "good"
    NOTE = "note"
    FAILED = "failed"
    SKIPPED = "skipped"


class Finding(Document):
    """One line: what was looked at, what was found, what to do."""

    check: str
    health: Health
    found: str
    todo: str = Field(default="", description="empty: nothing")


class Checkup(Document):
    """All of them, in the order in which they were made."""

    findings: list[Finding]

    @property
    def failed(self) -> bool:
        """Whether anything stands in the way."""
        return any(finding.health is Health.FAILED for finding in self.findings)


def good(check: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(check=check, health=Health.GOOD, found=found)


def note(check: str, found: str, todo: str) -> Finding:
    """It works, but not as well as it could."""
    return Finding(check=check, health=Health.NOTE, found=found, todo=todo)


def failed(check: str, found: str, todo: str) -> Finding:
    """It does not work."""
    return Finding(check=check, health=Health.FAILED, found=found, todo=todo)


def skipped(check: str, why: str) -> Finding:
    """Not looked at."""
    return Finding(check=check, health=Health.SKIPPED, found=why)
