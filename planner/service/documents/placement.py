"""Where a plan's replicas stand, as JSON, both ways."""

from pydantic import Field

from planner.domain.hardware import PurchaseOption
from planner.domain.placement import (
    CellAttainment,
    CellReplicas,
    CellsAttainment,
    Placement,
)
from planner.service.documents.document import Document
from planner.service.documents.replica_shape import ReplicaFields


class CellReplicasDocument(ReplicaFields):
    """Replicas of one pool in one cell."""

    cell: str = Field(description="name of the cell; empty: no cell has room for them")
    model: str
    purchase_option: PurchaseOption
    replicas: int = Field(ge=1)


class CellAttainmentDocument(Document):
    """What the requests of one cell experience."""

    cell: str
    traffic_ratio: float = Field(description="share of all requests that goes to it, 0..1")
    attainment_ratio: float = Field(description="share of these that meet every objective, 0..1")


class CellsAttainmentDocument(Document):
    """Attainment where each cell has a router of its own, by the closed form."""

    attainment_ratio: float = Field(description="of all requests together, 0..1")
    one_router_ratio: float = Field(description="of the same replicas behind one router, 0..1")
    cells: list[CellAttainmentDocument]


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
    attainment: CellsAttainmentDocument | None = Field(
        default=None,
        description="null: one cell has all replicas, so that the window's own prediction holds, "
        "or the closed form does not tell it",
    )


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
        attainment=(
            None
            if placement.attainment is None
            else CellsAttainmentDocument.model_validate(placement.attainment)
        ),
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
        attainment=None if document.attainment is None else _attainment_of(document.attainment),
    )


def _attainment_of(document: CellsAttainmentDocument) -> CellsAttainment:
    return CellsAttainment(
        cells=tuple(
            CellAttainment(
                cell=one.cell,
                traffic_ratio=one.traffic_ratio,
                attainment_ratio=one.attainment_ratio,
            )
            for one in document.cells
        ),
        one_router_ratio=document.one_router_ratio,
    )
