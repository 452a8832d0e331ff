"""Where a plan's replicas stand, as JSON, both ways."""

from pydantic import Field

from planner.domain.hardware import PurchaseOption
from planner.domain.placement import CellReplicas, Placement
from planner.service.documents.document import Document
from planner.service.documents.replica_shape import ReplicaFields


class CellReplicasDocument(ReplicaFields):
    """Replicas of one pool in one cell."""

    cell: str = Field(description="name of the cell; empty: no cell has room for them")
    model: str
    purchase_option: PurchaseOption
    replicas: int = Field(ge=1)


class PlacementDocument(Document):
    """Replicas of one window by topology cell, one router in each."""

    cells: list[str] = Field(description="all cells, in the spec's order")
    replicas: list[CellReplicasDocument]
    crossing_ratio: float = Field(
        description="share of the traffic whose prefill and decode capacity lie in different "
        "cells, where no router brings them together, 0..1"
    )
    capacity_loss_ratio: float = Field(
        description="by how much cells serve less than the same replicas behind one router, 0..1"
    )
    moves: int = Field(description="replicas that end in one cell and start in another")
    mending: str = Field(description="what would mend it; empty: nothing crosses")
    proven: bool = Field(description="true: no other placement is better")


def placement_document(placement: Placement) -> PlacementDocument:
    """The document of a placement."""
    return PlacementDocument(
        cells=list(placement.cells),
        replicas=[
            CellReplicasDocument(
                **dict(ReplicaFields.of(part.shape)),
                cell=part.cell,
                model=part.shape.model,
                purchase_option=part.purchase_option,
                replicas=part.replicas,
            )
            for part in placement.replicas
        ],
        crossing_ratio=placement.crossing_ratio,
        capacity_loss_ratio=placement.capacity_loss_ratio,
        moves=placement.moves,
        mending=placement.mending,
        proven=placement.proven,
    )


def placement_of(document: PlacementDocument) -> Placement:
    """The placement that a document describes."""
    return Placement(
        cells=tuple(document.cells),
        replicas=tuple(
            CellReplicas(
                cell=part.cell,
                shape=part.shape(part.model),
                purchase_option=part.purchase_option,
                replicas=part.replicas,
            )
            for part in document.replicas
        ),
        crossing_ratio=document.crossing_ratio,
        capacity_loss_ratio=document.capacity_loss_ratio,
        moves=document.moves,
        mending=document.mending,
        proven=document.proven,
    )
