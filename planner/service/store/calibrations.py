"""Corrections of profiles, and the newest comparisons of observed with predicted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, Select, delete, func, insert, select

from planner.capacity.calibration import Calibration
from planner.service.documents.calibration import (
    CalibrationDocument,
    ComparisonDocument,
    calibration_document,
    calibration_of,
)
from planner.service.store import audit
from planner.service.store.database import queue_up, translated
from planner.service.store.instants import stamp
from planner.service.store.leases import Fence, check
from planner.service.store.tables import CALIBRATIONS, COMPARISONS

MOST_COMPARISONS = 10_000
"""Kept of a deployment: a week of ticks, one a minute."""


@dataclass(frozen=True, slots=True)
class StoredCalibrations:
    """What was learned of a deployment's profiles."""

    engine: Engine
    deployment: str
    where: str
    fence: Fence | None = None

    def all(self) -> tuple[Calibration, ...]:
        """Every leg that was ever compared, by profile and leg."""
        query = (
            select(CALIBRATIONS.c.calibration)
            .where(CALIBRATIONS.c.deployment == self.deployment)
            .order_by(CALIBRATIONS.c.profile_id, CALIBRATIONS.c.leg)
        )
        return tuple(
            calibration_of(CalibrationDocument.model_validate_json(text))
            for text in self._texts(query)
        )

    def comparisons(self, *, limit: int) -> tuple[ComparisonDocument, ...]:
        """The newest comparisons, newest first."""
        query = (
            select(COMPARISONS.c.comparison)
            .where(COMPARISONS.c.deployment == self.deployment)
            .order_by(COMPARISONS.c.seq.desc())
            .limit(limit)
        )
        return tuple(ComparisonDocument.model_validate_json(text) for text in self._texts(query))

    def keep(
        self,
        comparison: ComparisonDocument,
        calibrations: Sequence[Calibration],
        *,
        changed: Sequence[Calibration],
        at: datetime,
    ) -> None:
        """Keep what a tick learned, in one transaction; corrections that changed are audited."""
        with translated(self.where), self.engine.begin() as connection:
            queue_up(connection)
            if self.fence is not None:
                check(connection, self.fence)
            self._add(connection, comparison)
            for one in calibrations:
                self._put(connection, one, at=at)
            for one in changed:
                audit.add(
                    connection,
                    at,
                    "calibration",
                    "profile.correct",
                    self.deployment,
                    detail=one.correction.sentence,
                )

    def _add(self, connection: Connection, comparison: ComparisonDocument) -> None:
        mine = COMPARISONS.c.deployment == self.deployment
        connection.execute(
            insert(COMPARISONS).values(
                deployment=self.deployment,
                model=comparison.model,
                compared_at=stamp(comparison.compared_at),
                comparison=comparison.model_dump_json(),
            )
        )
        newest = connection.execute(select(func.max(COMPARISONS.c.seq)).where(mine)).scalar_one()
        old = mine & (COMPARISONS.c.seq <= newest - MOST_COMPARISONS)
        connection.execute(delete(COMPARISONS).where(old))

    def _put(self, connection: Connection, one: Calibration, *, at: datetime) -> None:
        correction = one.correction
        key = (
            (CALIBRATIONS.c.deployment == self.deployment)
            & (CALIBRATIONS.c.profile_id == correction.profile_id)
            & (CALIBRATIONS.c.leg == correction.leg.value)
        )
        connection.execute(delete(CALIBRATIONS).where(key))
        connection.execute(
            insert(CALIBRATIONS).values(
                deployment=self.deployment,
                profile_id=correction.profile_id,
                leg=correction.leg.value,
                changed_at=stamp(at),
                calibration=calibration_document(one).model_dump_json(),
            )
        )

    def _texts(self, query: Select[str]) -> tuple[str, ...]:
        with translated(self.where), self.engine.connect() as raw:
            connection = raw.execution_options(reads_only=True)
            with connection.begin():
                return tuple(str(text) for text in connection.execute(query).scalars())
