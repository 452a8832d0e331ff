"""Possible futures through a forecast's windows, as JSON."""

from typing import Annotated, Self

import numpy as np
from pydantic import Field

from planner.domain.forecast import Paths
from planner.service.documents.document import Document

PathLevel = Annotated[float, Field(ge=0, le=1)]
PathRate = Annotated[float, Field(ge=0, le=1e24)]


class ClassPathsDocument(Document):
    """Paths of one request class: a row per path, a value per window."""

    request_class: str
    request_level: list[list[PathLevel]] = Field(
        description="where in its distribution the request rate lies, 0..1"
    )
    input_level: list[list[PathLevel]] = Field(description="the same of input tokens/s")
    output_level: list[list[PathLevel]] = Field(description="the same of output tokens/s")
    request_rate_rps: list[list[PathRate]] = Field(description="requests/s")
    input_tokens_per_s: list[list[PathRate]] = Field(description="tokens/s, cached ones included")
    output_tokens_per_s: list[list[PathRate]] = Field(description="tokens/s")


class PathsDocument(Document):
    """Possible futures, all alike likely; row `i` of all classes is one future."""

    rule: str = Field(description="how windows, quantities and classes go together")
    classes: list[ClassPathsDocument]

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """The document of paths."""
        return cls(
            rule=paths.rule,
            classes=[
                ClassPathsDocument(
                    request_class=one.request_class,
                    request_level=np.round(one.levels[:, :, 0], 6).tolist(),
                    input_level=np.round(one.levels[:, :, 1], 6).tolist(),
                    output_level=np.round(one.levels[:, :, 2], 6).tolist(),
                    request_rate_rps=one.rates[:, :, 0].tolist(),
                    input_tokens_per_s=one.rates[:, :, 1].tolist(),
                    output_tokens_per_s=one.rates[:, :, 2].tolist(),
                )
                for one in paths.classes
            ],
        )
