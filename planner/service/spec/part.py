"""What every part of a written spec has in common."""

from typing import Annotated, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

Name = Annotated[str, Field(min_length=1, max_length=200)]


class SpecPart(BaseModel):
    """What every part of the spec has in common: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, given: object, info: ValidationInfo[object]) -> object:
        annotation = cls.model_fields[info.field_name or ""].annotation
        numeric = {int, float} & {annotation, *get_args(annotation)}
        each = given if isinstance(given, list) else [given]
        if numeric and any(isinstance(value, bool) for value in each):
            raise PydanticCustomError("number", "true and false are no numbers: give a number")
        return given
