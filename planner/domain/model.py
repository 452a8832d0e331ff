"""The served model: what its weights and its KV cache weigh."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self


class Dtype(StrEnum):
    """Number formats of weights and KV cache."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FP8 = "fp8"
    INT8 = "int8"
    INT4 = "int4"

    @property
    def bytes_per_value(self) -> float:
        """Bytes that one stored number takes."""
        return _BYTES[self]


_BYTES = {
    Dtype.FLOAT32: 4.0,
    Dtype.BFLOAT16: 2.0,
    Dtype.FLOAT16: 2.0,
    Dtype.FP8: 1.0,
    Dtype.INT8: 1.0,
    Dtype.INT4: 0.5,
}


class Quality(StrEnum):
    """How close the answers of a number format are to the model's own: its user's judgement.

    reference: as the model is published. near: as good for this use. lossy: worse, and cheaper.
    """

    REFERENCE = "reference"
    NEAR = "near"
    LOSSY = "lossy"

    @property
    def steps_down(self) -> int:
        """How many labels are better."""
        return _FROM_THE_BEST.index(self)


_FROM_THE_BEST = (Quality.REFERENCE, Quality.NEAR, Quality.LOSSY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Architecture of a decoder-only transformer, as in its `config.json`.

    Parameters
    ----------
    name : str
        The name it is served under.
    layers, kv_heads, head_size : int
        Shape of the KV cache.
    parameters, active_parameters : int
        All weights, and those that one token passes through (equal for dense models).
    weight_dtype, kv_dtype : Dtype
        Stored formats.
    max_context_tokens : int
        Longest prompt plus answer.
    attention_heads : int or None
        Query heads, which tensor parallelism divides; None: not known.
    priority : int
        When models compete for one inventory, the higher is served first.
    """

    name: str
    layers: int
    kv_heads: int
    head_size: int
    parameters: int
    active_parameters: int
    weight_dtype: Dtype = Dtype.BFLOAT16
    kv_dtype: Dtype = Dtype.BFLOAT16
    max_context_tokens: int
    priority: int = 0
    attention_heads: int | None = None

    def __post_init__(self) -> None:
        for field in ("layers", "kv_heads", "head_size", "parameters", "max_context_tokens"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} of model {self.name} must be at least 1")

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights: parameters x bytes per value."""
        return self.parameters * self.weight_dtype.bytes_per_value

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes of one token's keys and values: 2 x layers x kv_heads x head_size x bytes."""
        return 2 * self.layers * self.kv_heads * self.head_size * self.kv_dtype.bytes_per_value

    def left_open(
        self, weight_dtype: Dtype | None, kv_dtype: Dtype | None
    ) -> tuple[Dtype | None, Dtype | None]:
        """Formats of weights and KV cache as shapes state them: None for the model's own."""
        weights = None if weight_dtype is self.weight_dtype else weight_dtype
        return weights, None if kv_dtype is self.kv_dtype else kv_dtype

    def stored_as(self, *, weight_dtype: Dtype | None, kv_dtype: Dtype | None) -> Self:
        """The same model with weights and KV cache in other formats; None: its own."""
        return replace(
            self,
            weight_dtype=weight_dtype or self.weight_dtype,
            kv_dtype=kv_dtype or self.kv_dtype,
        )
