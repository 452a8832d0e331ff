"""What was backed up or restored, as JSON."""

from pydantic import Field

from planner.service.documents.document import Document


class CopiedDocument(Document):
    """A backup that was written, or put back."""

    file: str
    file_bytes: int = Field(description="size of the file, bytes")
    schema_version: str = Field(description="version of the tables in the file")
    rows: dict[str, int] = Field(description="how many, by table")
