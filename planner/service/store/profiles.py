"""Profiles that were handed in, by their ids."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import insert, select

from planner.domain.errors import UnknownProfileError
from planner.service.store import audit
from planner.service.store.database import Access
from planner.service.store.instants import instant, stamp
from planner.service.store.tables import PROFILES


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredProfile:
    """A profile, as JSON text, and who handed it in."""

    seq: int
    profile_id: str
    profile: str
    added_at: datetime
    added_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredProfiles:
    """All profiles of a database; they belong to no deployment."""

    access: Access

    def add(self, profile_id: str, profile: str, *, by: str, at: datetime) -> bool:
        """Keep a profile; False when it is known already. Raises StoreError."""
        known = select(PROFILES.c.seq).where(PROFILES.c.profile_id == profile_id)
        with self.access.writing() as connection:
            if connection.execute(known).first() is not None:
                return False
            connection.execute(
                insert(PROFILES).values(
                    profile_id=profile_id, profile=profile, added_at=stamp(at), added_by=by
                )
            )
            audit.add(connection, at, by, "profile.add", profile_id)
        return True

    def profile(self, profile_id: str) -> StoredProfile:
        """One profile.

        Raises
        ------
        UnknownProfileError
            When none is stored under this id.
        """
        query = select(PROFILES).where(PROFILES.c.profile_id == profile_id)
        with self.access.reading() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            raise UnknownProfileError(
                f"no profile {profile_id} is stored; `GET /v1/profiles` lists the known ones"
            )
        return StoredProfile(**{**row, "added_at": instant(row["added_at"])})

    def profiles(self, *, limit: int, before: int | None = None) -> tuple[StoredProfile, ...]:
        """The newest profiles, newest first; those before a `seq` where given."""
        query = select(PROFILES).order_by(PROFILES.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(PROFILES.c.seq < before)
        with self.access.reading() as connection:
            rows = connection.execute(query).mappings().all()
        return tuple(StoredProfile(**{**row, "added_at": instant(row["added_at"])}) for row in rows)
