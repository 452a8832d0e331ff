"""The kind of a replica as JSON: what fleets, plans and simulations say of it alike."""

from typing import Self

from pydantic import Field

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.model import Dtype
from planner.service.documents.document import Degree, Document, EngineLimit


class ReplicaFields(Document):
    """One kind of replica of a model; null: as the model and its profile are."""

    role: Role
    accelerator: str
    tp: Degree = Field(default=1, description="tensor parallel degree")
    pp: Degree = Field(default=1, description="pipeline parallel degree")
    dp: Degree = Field(default=1, description="data parallel degree")
    weight_dtype: Dtype | None = Field(
        default=None, description="format of the weights; null: the model's own"
    )
    kv_dtype: Dtype | None = Field(
        default=None, description="format of the KV cache; null: the model's own"
    )
    max_num_batched_tokens: EngineLimit | None = Field(
        default=None, description="tokens computed in one step at the most; null: as profiled"
    )
    max_num_seqs: EngineLimit | None = Field(
        default=None, description="sequences decoded together at the most; null: as profiled"
    )

    @classmethod
    def of(cls, shape: ReplicaShape) -> Self:
        """The fields of a shape."""
        return cls.model_validate(shape)

    def shape(self, model: str) -> ReplicaShape:
        """The shape that the fields describe, of this model."""
        return ReplicaShape(
            role=self.role,
            model=model,
            accelerator=self.accelerator,
            tp=self.tp,
            pp=self.pp,
            dp=self.dp,
            weight_dtype=self.weight_dtype,
            kv_dtype=self.kv_dtype,
            max_num_batched_tokens=self.max_num_batched_tokens,
            max_num_seqs=self.max_num_seqs,
        )


def label_of(fields: ReplicaFields) -> str:
    """The short name of a shape, as in `decode:h100:tp2`."""
    return fields.shape("").label


class ShapeOfReplicaDocument(ReplicaFields):
    """One kind of replica, with its model."""

    model: str
