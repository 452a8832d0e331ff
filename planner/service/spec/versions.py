"""The spec in force: the file's, or one that was put in its place; every version is kept.

A spec that is put is validated as a whole first. Plans that wait and were made under another spec
are superseded. After a restart the spec that was put last is in force again, as long as the file
is the one that it was put over; a file that was changed since goes before.
"""

import json
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from forecaster.memory import Memory
from planner.domain.errors import (
    NotAllowedError,
    SpecError,
    UnknownDeploymentError,
    UnknownProfileError,
)
from planner.domain.hardware import Catalogue
from planner.domain.spec import Spec, TargetKind
from planner.service.answers.planning import sole_model
from planner.service.deployment import Deployment, StoreObserver, utc_now
from planner.service.election.leadership import ActuatorOf, Leadership
from planner.service.fleet import lifecycle
from planner.service.spec.file import HINT, spec_of
from planner.service.spec.model_config import read_model_config
from planner.service.spec.yaml_source import read_yaml
from planner.service.store import Store
from planner.service.store.deployments import check_served
from planner.service.store.profiles import StoredProfiles
from planner.service.store.specs import SpecVersion, StoredSpecs
from profiler.files import profile_document, read_profile

LOG = logging.getLogger("poolwise.spec")
CHANGED = "a spec changed under a pending plan"
FILE = "serve"
"""Who puts the spec of the file that the server was started with."""


def content_of(path: Path) -> dict[str, object]:
    """The spec in a file with everything inline, as it may be put.

    Raises
    ------
    SpecError, ProfileError
        As `read_spec`.
    """
    content = dict(read_yaml(path, what="a spec", hint=HINT).data)
    profiles, models = content.get("profiles") or [], content.get("models") or []
    if isinstance(profiles, list) and isinstance(models, list):
        content["profiles"] = [_profile(path.parent, entry) for entry in profiles]
        content["models"] = [_model(path.parent, entry) for entry in models]
    plain: dict[str, object] = json.loads(json.dumps(content, default=str))
    return plain


def _profile(folder: Path, entry: object) -> object:
    if not isinstance(entry, str):
        return entry
    profile = read_profile(folder / Path(entry).expanduser())
    return profile_document(profile).model_dump(mode="json")


def _model(folder: Path, entry: object) -> object:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("config"), str):
        return entry
    return {**entry, "config": read_model_config(folder / Path(entry["config"]).expanduser())}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecReader:
    """How specs that are put are read here.

    Parameters
    ----------
    dry_run : bool
        Whether their target is replaced by a dry run, as the command line says.
    model : str or None
        The one that is planned, where they list several.
    """

    profiles: StoredProfiles
    catalogue: Catalogue | None = None
    dry_run: bool = False
    model: str | None = None

    def read(self, content: Mapping[str, object], *, allow_estimates: bool) -> Spec:
        """The spec in a parsed JSON object.

        Raises
        ------
        SpecError
            With every problem on a line of its own.
        """
        spec = spec_of(
            content, where="spec", allow_estimates=allow_estimates, catalogue=self.catalogue
        )
        return replace(spec, target=TargetKind.DRY_RUN) if self.dry_run else spec

    def resolved(self, content: Mapping[str, object]) -> dict[str, object]:
        """The same with profiles that are named by their ids inline.

        Raises
        ------
        SpecError
            When a name is no id of a stored profile.
        """
        entries = content.get("profiles", [])
        if not isinstance(entries, list):
            return dict(content)
        return {**content, "profiles": [self._named(entry) for entry in entries]}

    def _named(self, entry: object) -> object:
        if not isinstance(entry, str):
            return entry
        try:
            profile: object = json.loads(self.profiles.profile(entry).profile)
        except UnknownProfileError as error:
            raise SpecError(
                f"spec: profiles: {error}; name the id of a stored one (`POST /v1/profiles`), or "
                "put its content there"
            ) from error
        return profile


@dataclass(slots=True, kw_only=True)
class Specs:
    """The spec of one deployment, in this process.

    Parameters
    ----------
    given : str
        Id of the spec in the file.
    hands : callable
        Makes what moves the fleet of a spec's target.
    watchers : list
        Told of every deployment that takes the place of another one.
    now : SpecVersion
        The version in force here.
    fits : callable
        Raises SpecError where a spec does not go with those of the other deployments, as the
        transaction that keeps it sees them.
    ended : bool
        The deployment is served no longer: nothing is put any more.
    """

    store: Store
    reader: SpecReader
    given: str
    hands: Callable[[Spec], ActuatorOf]
    leadership: Leadership
    now: SpecVersion
    fits: Callable[[Connection, Spec], None] = lambda _connection, _spec: None
    watchers: list[Callable[[Deployment], None]] = field(default_factory=list)
    ended: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def stored(self) -> StoredSpecs:
        """All versions."""
        name = self.leadership.deployment.spec.name
        return StoredSpecs(access=self.store.access, deployment=name)

    def put(
        self,
        content: Mapping[str, object],
        *,
        allow_estimates: bool,
        by: str,
        at: datetime,
        expected: int | None = None,
        may_change_approval: bool = True,
    ) -> SpecVersion:
        """Put a spec in the place of the one in force, here and in every other process.

        Parameters
        ----------
        may_change_approval : bool
            Whether they may also change who has to approve.

        Raises
        ------
        NotAllowedError
            When they change that and may not.
        SpecError
            When it is not valid, or another deployment's.
        SpecChangedError
            When the version `expected` is not in force any more.
        UnknownDeploymentError
            When the deployment was retired meanwhile.
        """
        inline = self.reader.resolved(content)
        spec = self.reader.read(inline, allow_estimates=allow_estimates)
        self._check(spec)
        if not may_change_approval:
            self.follow()  # another process may have been told of a stricter one
            expected = self.now.version if expected is None else expected
        if not may_change_approval and spec.approval != self.leadership.deployment.spec.approval:
            raise NotAllowedError(
                "spec: approval differs from the one in force, and who has to approve is changed "
                "by admins only: leave it as it is, or ask one"
            )
        made = SpecVersion(
            version=0,
            spec_id=spec.spec_id,
            given=self.given,
            content=inline,
            allow_estimates=allow_estimates,
            put_at=at,
            put_by=by,
        )

        def allowed(connection: Connection) -> None:
            check_served(connection, spec.name)
            self.fits(connection, spec)

        with self._lock:
            if self.ended:
                raise UnknownDeploymentError(f"deployment {spec.name} was retired meanwhile")
            kept = self.stored.add(made, expected=expected, allowed=allowed)
            self._use(kept, spec, by=by)
        return kept

    def end(self) -> None:
        """Put nothing any more, once what is being put is in force."""
        with self._lock:
            self.ended = True

    def follow(self) -> None:
        """Take over what another process was told. Raises StoreError, SpecError."""
        newest = self.stored.newest_id()
        if newest is None or newest[0] <= self.now.version:
            return
        with self._lock:
            version = None if self.ended else self.stored.newest()
            if version is not None and version.version > self.now.version:
                spec = self.reader.read(version.content, allow_estimates=version.allow_estimates)
                self._use(version, spec, by=version.put_by)

    def _check(self, spec: Spec) -> None:
        """Refuse what a running server cannot become."""
        now = self.leadership.deployment.spec
        for what, old, new in (
            ("name", now.name, spec.name),
            ("target.kind", now.target, spec.target),
        ):
            if old != new:
                raise SpecError(
                    f"spec: {what} is {new}, and of a running server it stays {old}: start another "
                    "one with `poolwise serve --spec`"
                )
        sole_model(spec, self.reader.model)

    def _use(self, version: SpecVersion, spec: Spec, *, by: str) -> None:
        old = self.leadership.deployment
        if spec.spec_id != old.spec.spec_id:
            actuator_of, model = self.hands(spec), sole_model(spec, self.reader.model)
            observer = StoreObserver(store=self.store, deployment=spec.name, model=model)
            made = replace(
                old,
                spec=spec,
                model=model,
                observer=observer,
                actuator=actuator_of(self.store, None),
                memory=Memory(),
            )
            self.leadership.replace(made, actuator_of)
            for watcher in self.watchers:
                watcher(made)
            LOG.info("deployment=%s spec=%s version=%d", spec.name, spec.spec_id, version.version)
        self.now = version
        supersede_foreign(self.leadership.deployment, by=by)


def supersede_foreign(deployment: Deployment, *, by: str) -> None:
    """Supersede plans that wait and were made under another spec than the one in force."""
    for record in lifecycle.waiting(deployment):
        if record.plan.inputs.spec_id != deployment.spec.spec_id:
            lifecycle.supersede(
                deployment,
                record.plan.plan_id,
                by=by,
                at=deployment.clock(),
                reason=f"{CHANGED}: it was made under {record.plan.inputs.spec_id}, and now "
                f"{deployment.spec.spec_id} is in force",
            )


def in_force(
    path: Path, spec: Spec, store: Store, reader: SpecReader, *, allow_estimates: bool
) -> tuple[SpecVersion, Spec]:
    """The version of the spec that a server which starts with a file serves, and that spec.

    A version that was put over this very file stays; one that can no longer be read does not.

    Parameters
    ----------
    spec : Spec
        As it was read from the file.
    """
    given = SpecVersion(
        version=0,
        spec_id=spec.spec_id,
        given=spec.spec_id,
        content=content_of(path),
        allow_estimates=allow_estimates,
        put_at=utc_now(),
        put_by=FILE,
    )
    stored = StoredSpecs(access=store.access, deployment=spec.name)
    version, put = _version_in_force(stored, given, reader)
    return version, put or spec


def _version_in_force(
    stored: StoredSpecs, given: SpecVersion, reader: SpecReader
) -> tuple[SpecVersion, Spec | None]:
    """None: the file's own spec."""
    newest = stored.newest()
    if newest is not None and newest.given == given.given:
        if newest.spec_id == given.given:
            return newest, None
        with suppress(SpecError):
            spec = reader.read(newest.content, allow_estimates=newest.allow_estimates)
            LOG.info("version %d of the spec is in force, put by %s", newest.version, newest.put_by)
            return newest, spec
        LOG.warning(
            "version %d of the spec cannot be read any more: the file's is used", newest.version
        )
    return stored.add(given), None
