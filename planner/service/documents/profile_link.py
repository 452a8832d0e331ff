"""A profile with the KV transfers of another link, as JSON."""

from pydantic import Field

from planner.service.documents.document import Document


class LinkedProfileDocument(Document):
    """The profile, and the line through its transfers, as a topology takes it."""

    profile_id: str
    file: str
    link_class: str = Field(description="same_node, same_rack or cross_rack")
    source: str = Field(description="who measured the transfers on what")
    base_s: float = Field(description="fixed part of a transfer, seconds")
    flow_bytes_per_s: float = Field(description="what one transfer gets, bytes/s")
    note: str = Field(description="what the profile says of it")
