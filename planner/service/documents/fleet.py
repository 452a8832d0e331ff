"""The fleet as JSON (design section 3)."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from pydantic import Field

from planner.domain.errors import HistoryError
from planner.domain.fleet import CellPool, Fleet, Pool, merged, version_of
from planner.domain.hardware import PurchaseOption
from planner.domain.spec import Spec
from planner.service.documents.document import (
    Document,
    Instant,
    ReplicaCount,
    parse,
    read_object,
)
from planner.service.documents.replica_shape import ReplicaFields
from planner.service.spec.problems import did_you_mean


class PoolDocument(ReplicaFields):
    """Identical replicas by state."""

    model: str | None = Field(default=None, description="left out: the spec's only model")
    purchase_option: PurchaseOption = PurchaseOption.ON_DEMAND
    ready: ReplicaCount = Field(default=0, description="replicas that take traffic")
    starting: ReplicaCount = Field(default=0, description="replicas that will")
    draining: ReplicaCount = Field(default=0, description="replicas that finish what they have")
    stuck: ReplicaCount = Field(
        default=0, description="replicas that did not come in time: nobody waits for them"
    )
    cell: str | None = Field(
        default=None,
        description="topology cell that they stand in: a pool is then listed once for each cell; "
        "null for every pool: not known, or there are no cells",
    )


class FleetDocument(Document):
    """All pools of a deployment at one instant."""

    pools: list[PoolDocument]
    read_at: Instant | None = Field(
        default=None, description="when it was seen; left out: when it was handed in"
    )
    version: str | None = Field(
        default=None,
        max_length=200,
        description="changes whenever the fleet does; left out: hash of the pools",
    )


def fleet_document(fleet: Fleet) -> FleetDocument:
    """The document of a fleet."""
    parts = [pool_document(part.pool, part.cell) for part in fleet.by_cell]
    return FleetDocument(
        pools=parts or [pool_document(pool) for pool in fleet.pools],
        read_at=fleet.read_at,
        version=fleet.version,
    )


def pool_document(pool: Pool, cell: str | None = None) -> PoolDocument:
    """The document of one pool, or of its part in a cell."""
    return PoolDocument(
        **dict(ReplicaFields.of(pool.shape)),
        model=pool.shape.model,
        purchase_option=pool.purchase_option,
        ready=pool.ready,
        starting=pool.starting,
        draining=pool.draining,
        stuck=pool.stuck,
        cell=cell,
    )


def fleet_of(document: FleetDocument, *, spec: Spec, read_at: datetime, where: str) -> Fleet:
    """The fleet that a document describes.

    Parameters
    ----------
    spec : Spec
        Its models and accelerators are the ones that may be named.
    read_at : datetime
        When it was handed in, for documents that do not say when it was seen.

    Raises
    ------
    HistoryError
        When it names what the spec does not have, or lists a pool twice.
    """
    pools = tuple(_pool(p, spec, f"{where}: pools[{i}]") for i, p in enumerate(document.pools))
    by_cell = tuple(
        CellPool(cell=_cell(p.cell, spec, f"{where}: pools[{i}]"), pool=pool)
        for i, (p, pool) in enumerate(zip(document.pools, pools, strict=True))
        if p.cell is not None
    )
    if by_cell and len(by_cell) < len(pools):
        raise HistoryError(f"{where}: name the cell of every pool, or of none")
    try:
        whole = merged(by_cell) if by_cell else pools
        return Fleet(
            pools=whole,
            read_at=document.read_at or read_at,
            version=document.version or version_of(whole),
            by_cell=by_cell,
        )
    except ValueError as error:
        raise HistoryError(f"{where}: {error}") from error


def read_fleet(path: Path, *, spec: Spec, read_at: datetime) -> Fleet:
    """The fleet in a JSON file.

    Raises
    ------
    HistoryError
        When the file is missing or no fleet of this spec.
    """
    data = read_object(path, what="a fleet")
    return fleet_from(data, spec=spec, read_at=read_at, where=str(path))


def fleet_from(data: Mapping[str, object], *, spec: Spec, read_at: datetime, where: str) -> Fleet:
    """The fleet in parsed JSON; see `read_fleet`."""
    document = parse(FleetDocument, data, where=where)
    return fleet_of(document, spec=spec, read_at=read_at, where=where)


def _cell(name: str, spec: Spec, where: str) -> str:
    known = [cell.name for cell in spec.cells]
    if known and name not in known:
        raise HistoryError(f"{where}: cell `{name}` is not in the spec{did_you_mean(name, known)}")
    return name


def _pool(document: PoolDocument, spec: Spec, where: str) -> Pool:
    models = [m.name for m in spec.models]
    if document.model is None and len(models) > 1:
        raise HistoryError(f"{where}: model is missing: the spec has {', '.join(models)}")
    model = document.model or models[0]
    if model not in models:
        raise HistoryError(
            f"{where}: model `{model}` is not in the spec{did_you_mean(model, models)}"
        )
    accelerators = [a.name for a in spec.accelerators]
    if document.accelerator not in accelerators:
        raise HistoryError(
            f"{where}: accelerator `{document.accelerator}` is not in the spec"
            f"{did_you_mean(document.accelerator, accelerators)}"
        )
    return Pool(
        shape=spec.normalized(document.shape(model)),
        purchase_option=document.purchase_option,
        ready=document.ready,
        starting=document.starting,
        draining=document.draining,
        stuck=document.stuck,
    )
