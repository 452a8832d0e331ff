"""How a profile was measured, as stored: the parts of a profile file that only people read."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from planner.domain.profile_details import ProfileDetails, StartUp, TableFit

Seconds = Annotated[float, Field(ge=0, le=1e6, description="seconds")]
Quantity = Annotated[float, Field(ge=0, le=1e12)]
Count = Annotated[int, Field(ge=1, le=10**12, description="count, at least 1")]
Ratio = Annotated[float, Field(ge=0, le=1e6)]
Number = Annotated[int, Field(ge=0, le=10**12)]


class StrictDocument(BaseModel):
    """Unknown fields, infinities and NaN are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TableFitDocument(StrictDocument):
    """How a table was fitted, and its error at points kept from fitting."""

    form: str
    coefficients: dict[str, float] = Field(default={}, description="seconds per unit")
    points: Number
    held_out_points: Number
    median_error_ratio: Ratio | None = None
    p90_error_ratio: Ratio | None = None
    median_error_interval: tuple[Ratio, Ratio] | None = Field(default=None, description="95 %")
    noise_ratio: Ratio = Field(description="standard deviation of one sample over its value")

    @classmethod
    def of(cls, fit: TableFit) -> Self:
        """The document of a fit."""
        return cls(
            form=fit.form,
            coefficients=dict(fit.coefficients),
            points=fit.points,
            held_out_points=fit.held_out_points,
            median_error_ratio=fit.median_error_ratio,
            p90_error_ratio=fit.p90_error_ratio,
            median_error_interval=fit.median_error_interval,
            noise_ratio=fit.noise_ratio,
        )

    def fit(self) -> TableFit:
        """The fit."""
        content = self.model_dump() | {"coefficients": tuple(self.coefficients.items())}
        return TableFit(**content)


class StartUpDocument(StrictDocument):
    """One start, seconds."""

    total_s: Seconds
    load_s: Seconds | None = None
    compile_s: Seconds | None = None
    warm_up_s: Seconds | None = None


class DetailsDocument(StrictDocument):
    """What a measured profile knows beside its tables; null: not measured."""

    prefill: TableFitDocument
    decode_step: TableFitDocument
    mixed_ratio: Ratio | None = None
    mixed_stall_s: Seconds | None = None
    loaded_transfer_ratio: Ratio | None = None
    direct_prefill_ratio: Ratio | None = None
    prefill_tokens_per_s: Quantity | None = None
    decode_tokens_per_s: Quantity | None = None
    prefix_cache_hit_ratio: Ratio | None = None
    kv_bytes_per_token: Quantity | None = None
    start_cold: StartUpDocument | None = None
    start_warm: StartUpDocument | None = None
    drain_s: Seconds | None = None
    memory_bytes: Annotated[float, Field(ge=0, le=1e15)] | None = None
    power_w: Quantity | None = None
    samples: Number
    disturbed_samples: Number
    complete: bool
    facts: dict[str, str] = {}

    @classmethod
    def of(cls, details: ProfileDetails) -> Self:
        """The document of details."""
        plain = {name: getattr(details, name) for name in _PLAIN}
        return cls(
            **plain,
            prefill=TableFitDocument.of(details.prefill),
            decode_step=TableFitDocument.of(details.decode_step),
            start_cold=_start_document(details.start_cold),
            start_warm=_start_document(details.start_warm),
            facts=dict(details.facts),
        )

    def details(self) -> ProfileDetails:
        """The details."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return ProfileDetails(
            **plain,
            prefill=self.prefill.fit(),
            decode_step=self.decode_step.fit(),
            start_cold=_start(self.start_cold),
            start_warm=_start(self.start_warm),
            facts=tuple(self.facts.items()),
        )


_PARTS = {"prefill", "decode_step", "start_cold", "start_warm", "facts"}
_PLAIN = tuple(name for name in DetailsDocument.model_fields if name not in _PARTS)
"""Fields that are the same in the file and in the domain."""


def _start_document(start: StartUp | None) -> StartUpDocument | None:
    if start is None:
        return None
    return StartUpDocument(
        total_s=start.total_s,
        load_s=start.load_s,
        compile_s=start.compile_s,
        warm_up_s=start.warm_up_s,
    )


def _start(document: StartUpDocument | None) -> StartUp | None:
    return None if document is None else StartUp(**document.model_dump())
