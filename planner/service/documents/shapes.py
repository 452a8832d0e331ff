"""Joint request lengths as JSON: one entry per bucket."""

from typing import Annotated, Self

import numpy as np
from pydantic import Field

from planner.domain.workload import Shape
from planner.service.documents.document import Document, Number

BucketTokens = Annotated[float, Number, Field(ge=0, le=1e8)]
Share = Annotated[float, Number, Field(ge=0, le=1)]


class ShapeDocument(Document):
    """Joint distribution of one request's lengths; equally long lists, one entry per bucket."""

    input_tokens: list[BucketTokens] = Field(min_length=1, description="mean prompt length, tokens")
    output_tokens: list[BucketTokens] = Field(
        min_length=1, description="mean answer length, tokens"
    )
    cached_tokens: list[BucketTokens] = Field(
        min_length=1, description="mean cached prefix, tokens"
    )
    weight: list[Share] = Field(min_length=1, description="share of requests, sums to 1")

    @classmethod
    def of(cls, shape: Shape) -> Self:
        """The document of a shape."""
        return cls(
            input_tokens=shape.input_tokens.tolist(),
            output_tokens=shape.output_tokens.tolist(),
            cached_tokens=shape.cached_tokens.tolist(),
            weight=shape.weight.tolist(),
        )

    def shape(self) -> Shape:
        """The shape; ValueError when the lists differ in length or the weights are no shares."""
        lengths = {len(self.input_tokens), len(self.output_tokens), len(self.cached_tokens)}
        if lengths != {len(self.weight)}:
            raise ValueError("shape: the lists must be equally long, one entry per bucket")
        pairs = zip(self.cached_tokens, self.input_tokens, strict=True)
        if any(cached > prompt for cached, prompt in pairs):
            raise ValueError("shape: cached_tokens must not exceed input_tokens")
        return Shape(
            input_tokens=np.asarray(self.input_tokens, dtype=np.float64),
            output_tokens=np.asarray(self.output_tokens, dtype=np.float64),
            cached_tokens=np.asarray(self.cached_tokens, dtype=np.float64),
            weight=np.asarray(self.weight, dtype=np.float64),
        )
