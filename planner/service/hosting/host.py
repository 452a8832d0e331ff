"""Opens deployments in this process, adds and retires them while it runs, and ends them."""

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import Connection

from planner.domain.errors import PlanStateError, PoolwiseError, SpecChangedError, SpecError
from planner.domain.spec import Spec, Stage, TargetKind
from planner.service.answers.planning import sole_model
from planner.service.deployment import Deployment, StoreObserver
from planner.service.election.leadership import Election, Leadership
from planner.service.fleet import lifecycle
from planner.service.hosting.hands import Hands, desired_of, valid_for_s
from planner.service.hosting.overlaps import check_apart
from planner.service.hosting.registry import Registry, Served
from planner.service.live.sight import Sight
from planner.service.live.watching import LiveSignals, source_of
from planner.service.loop.scheduler import keep_on_time, look_soon, schedule_ticks, unschedule
from planner.service.loop.stages import Slots, Stages
from planner.service.loop.tidying import schedule_tidying
from planner.service.settings import Settings
from planner.service.spec.versions import SpecReader, Specs, supersede_foreign
from planner.service.store import Store
from planner.service.store.approvals import check_alone
from planner.service.store.deployments import Membership, StoredDeployments
from planner.service.store.specs import SpecVersion, StoredSpecs, ids_in_force, newest_version
from planner.service.telemetry.events import EventWatch
from planner.service.telemetry.metrics import Metrics
from planner.service.telemetry.notifying import Notifier
from planner.service.telemetry.tracing import SpanOf, no_span
from serving.telemetry.whole import Promised

LOG = logging.getLogger("poolwise.serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the deployments of a process have in common.

    Parameters
    ----------
    lease : str
        Its name; it names the server, too.
    slots : Slots
        Taken by whoever computes.
    """

    store: Store
    settings: Settings
    reader: SpecReader
    election: Election
    lease: str
    metrics: Metrics
    scheduler: BackgroundScheduler
    notifier: Notifier
    span: SpanOf = no_span
    slots: Slots = field(default_factory=Slots)

    @property
    def members(self) -> StoredDeployments:
        """What was added to this server at run time, and retired from it."""
        return StoredDeployments(access=self.store.access, lease=self.lease)


@dataclass(slots=True)
class Host:
    """The deployments of a process, and how they come and go."""

    shared: Shared
    registry: Registry = field(default_factory=Registry)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)

    def open(
        self, version: SpecVersion, spec: Spec, *, alone: bool, first_ratio: float = 1.0
    ) -> Served:
        """Serve a deployment from now on: its ticks, what is seen of it, its metrics.

        Parameters
        ----------
        alone : bool
            Whether what `POOLWISE_WATCH` names is its own where it does not say whose it is.
        first_ratio : float
            As `schedule_ticks`.
        """
        made = self._made(version, spec, alone=alone)
        self.registry.add(made)
        supersede_foreign(made.deployment, by=version.put_by)
        self._begin(made, first_ratio=first_ratio)
        return made

    def check_apart(self, spec: Spec) -> None:
        """Refuse a target that another deployment steers here. Raises SpecError."""
        others = (one.deployment.spec for one in self.registry.all() if one.name != spec.name)
        check_apart(spec, tuple(others))

    def check_apart_everywhere(self, connection: Connection, spec: Spec) -> None:
        """The same of what other processes of this server were told a moment ago.

        In the transaction that keeps the spec: two processes may be told of one target at once.
        """
        here = {one.name: one.deployment.spec for one in self.registry.all()}
        members = self.shared.members.served(connection)
        others = {name: one for name, one in here.items() if name != spec.name}
        for name, spec_id in ids_in_force(connection, {*here, *members} - {spec.name}).items():
            if name in here and here[name].spec_id == spec_id:
                continue
            version = newest_version(connection, name)
            if version is not None:
                with suppress(SpecError):  # one that cannot be read here is served by nobody
                    others[name] = self.shared.reader.read(
                        version.content, allow_estimates=version.allow_estimates
                    )
        check_apart(spec, tuple(others.values()))

    def add(
        self,
        name: str,
        content: Mapping[str, object],
        *,
        allow_estimates: bool,
        by: str,
        at: datetime,
    ) -> Served:
        """Serve one more deployment, here and in every other process of this server.

        Raises
        ------
        SpecError
            When the spec is not valid, another deployment's, or its target is another one's.
        """
        reader, store = self.shared.reader, self.shared.store
        inline = reader.resolved(content)
        spec = reader.read(inline, allow_estimates=allow_estimates)
        if spec.name != name:
            raise SpecError(f"spec: name is {spec.name}, and deployment {name} was asked for")
        sole_model(spec, reader.model)
        with self._lock:
            if name in self.registry:
                raise SpecChangedError(f"deployment {name} was added meanwhile: look at it again")
            self.check_apart(spec)
            Hands(spec=spec, desired=None).on(store)  # what cannot be reached is told at once
            earlier = self.shared.members.all().get(name)
            given = earlier.given if earlier else ""  # a file that it comes back over stays behind
            made = SpecVersion(
                version=0,
                spec_id=spec.spec_id,
                given=given,
                content=inline,
                allow_estimates=allow_estimates,
                put_at=at,
                put_by=by,
            )
            member = Membership(
                deployment=name, given=given, changed_at=at, changed_by=by, retired=False
            )

            def allowed(connection: Connection) -> None:
                self.check_apart_everywhere(connection, spec)
                self.shared.members.put_in(connection, member)

            stored = StoredSpecs(access=store.access, deployment=name)
            version = stored.add(made, allowed=allowed)
            LOG.info("deployment=%s added by %s", name, by)
            return self.open(version, spec, alone=False)

    def retire(self, name: str, *, by: str, at: datetime) -> None:
        """Serve a deployment no longer; its fleet stays, and all that is kept of it.

        Raises
        ------
        UnknownDeploymentError
            When none of this name is served.
        PlanStateError
            When a plan of it moves the fleet.
        """
        with self._lock:
            served = self.registry.get(name)
            moving = served.deployment.moving()
            if moving is not None:
                raise PlanStateError(
                    f"plan {moving.plan.plan_id} of {name} is {moving.approval.state}: wait for "
                    "its end before you retire the deployment"
                )
            given = served.specs.given if served.specs else ""
            member = Membership(
                deployment=name, given=given, changed_at=at, changed_by=by, retired=True
            )
            with self.shared.store.access.writing() as connection:
                check_alone(connection, name)  # one may have begun since
                self.shared.members.put_in(connection, member)
            self._end(served)
            for record in lifecycle.waiting(served.deployment):
                lifecycle.supersede(
                    served.deployment,
                    record.plan.plan_id,
                    by=by,
                    at=at,
                    reason=f"deployment {name} was retired",
                )
            LOG.info("deployment=%s retired by %s", name, by)

    def follow(self) -> None:
        """Take over what other processes of this server were told. Raises StoreError."""
        for member in self.shared.members.all().values():
            with self._lock:
                self._follow(member)
        for served in self.registry.all():
            if served.specs is not None:
                try:
                    served.specs.follow()
                except PoolwiseError as error:  # the others are followed all the same
                    LOG.warning("deployment=%s %s", served.name, error)

    def keep_on_time(self) -> None:
        """Have ticks go on where the machine's clock was set back."""
        keep_on_time(self.shared.scheduler)

    def open_member(self, member: Membership) -> None:
        """Serve a deployment that was added at run time; one that cannot be read is told."""
        stored = StoredSpecs(access=self.shared.store.access, deployment=member.deployment)
        version = stored.newest()
        if version is None:
            return
        try:
            spec = self.shared.reader.read(version.content, allow_estimates=version.allow_estimates)
            self.check_apart(spec)
            self.open(version, spec, alone=False)
        except PoolwiseError as error:
            LOG.warning("deployment=%s cannot be served: %s", member.deployment, error)

    def finish(self) -> None:
        """Wait for what moves a fleet: a rollout that outlasted its tick."""
        for served in self.registry.all():
            served.deployment.stages.finish(Stage.APPLY)

    def stop(self) -> None:
        """See nothing and tell nothing of any of them any more."""
        for served in self.registry.all():
            for part in (served.events, served.live):
                if part is not None:
                    part.stop()

    def _follow(self, member: Membership) -> None:
        name = member.deployment
        if member.retired and name in self.registry:
            LOG.info("deployment=%s was retired by %s", name, member.changed_by)
            self._end(self.registry.get(name))
        elif not member.retired and name not in self.registry:
            self.open_member(member)

    def _made(self, version: SpecVersion, spec: Spec, *, alone: bool) -> Served:
        shared = self.shared
        desired = desired_of(spec, shared.election)
        live = self._live(spec, alone=alone)
        deployment = self._deployment(spec, Hands(spec=spec, desired=desired), live)
        hands = Hands(spec=spec, desired=desired).on
        leadership = Leadership(shared.election, deployment, hands, lease=shared.lease)
        specs = Specs(
            store=shared.store,
            reader=shared.reader,
            given=version.given,
            hands=lambda new: Hands(spec=new, desired=desired).on,
            leadership=leadership,
            now=version,
            fits=self.check_apart_everywhere,
        )
        events = None
        if shared.notifier.senders:
            events = EventWatch(
                deployment,
                shared.notifier,
                lambda: shared.election.term() is not None,
                burn_ratio=shared.settings.notifications.burn_ratio,
            )
        return Served(leadership=leadership, specs=specs, live=live, events=events, desired=desired)

    def _deployment(self, spec: Spec, hands: Hands, live: LiveSignals) -> Deployment:
        store, model = self.shared.store, sole_model(spec, self.shared.reader.model)
        return Deployment(
            spec=spec,
            model=model,
            observer=StoreObserver(store=store, deployment=spec.name, model=model),
            actuator=hands.on(store),
            store=store,
            stages=Stages(slots=self.shared.slots),
            readings=live.take,
            span=self.shared.span,
        )

    def _live(self, spec: Spec, *, alone: bool) -> LiveSignals:
        """What is seen of a deployment; reading begins with `start`."""
        settings, stopped = self.shared.settings, threading.Event()
        own = replace(settings, watch=settings.watch.of(spec.name, alone=alone))
        here = alone or spec.target is TargetKind.LOCAL
        return LiveSignals(
            source=source_of(own, sleep=stopped.wait, here=here),
            interval_s=own.watch.interval_s,
            promised=Promised(spec=spec, model=sole_model(spec, self.shared.reader.model)),
            store=self.shared.store,
            stopped=stopped,
        )

    def _begin(self, served: Served, *, first_ratio: float) -> None:
        shared, name = self.shared, served.name
        live, specs, leadership = served.live, served.specs, served.leadership
        if live is None or specs is None:
            return
        shared.metrics.watch(name, shared.election)
        if served.desired is not None:
            shared.metrics.export(served.desired)
        sight = Sight(leadership, live)
        shared.metrics.show(served.deployment, live)
        shared.notifier.show(name)
        if served.events is not None:
            live.on_signals.append(served.events.take)
            served.events.start()
        live.start()
        schedule_ticks(
            shared.scheduler,
            leadership,
            shared.metrics,
            before_tick=specs.follow,
            first_ratio=first_ratio,
        )
        look_soon(shared.scheduler, leadership)
        schedule_tidying(shared.scheduler, leadership, shared.settings.keeping)

        def follow(made: Deployment) -> None:
            sight.follow(made)
            shared.metrics.follow(made)
            if served.events is not None:
                served.events.follow(made)
            schedule_ticks(shared.scheduler, leadership, shared.metrics, before_tick=specs.follow)
            if served.desired is not None:
                served.desired.valid_for_s = valid_for_s(made.spec)

        specs.watchers.append(follow)

    def _end(self, served: Served) -> None:
        """Serve it no longer: no further step of it is begun."""
        if served.specs is not None:
            served.specs.end()  # a spec that is being put has it tick again: first of all
        served.leadership.end()
        unschedule(self.shared.scheduler, served.name)
        self.registry.remove(served.name)
        for part in (served.events, served.live):
            if part is not None:
                part.stop()
        self.shared.metrics.forget(served.name)
