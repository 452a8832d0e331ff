"""What was written of a profile for another program, as JSON."""

from pydantic import Field

from planner.service.documents.document import Document


class ExportedProfileDocument(Document):
    """Files in another program's format."""

    profile_id: str
    target: str
    files: list[str]
    notes: list[str] = Field(description="what the format cannot hold")
