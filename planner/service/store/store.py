"""The store: plans with their approval states, observations, fleets, decisions, audit, tokens.

Every write is one transaction together with its audit line. Approval states and the audit log
are only ever appended to.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import MappingProxyType

from sqlalchemy import Connection, Engine, delete, insert, select

from actuators.kubernetes.stock_out import StockOut
from planner.autoscale.backlog import Backlog
from planner.domain.errors import UnknownPlanError
from planner.domain.fleet import Fleet
from planner.domain.forecast import Forecast
from planner.domain.rollout import Approval, ApprovalState
from planner.domain.spec import Spec
from planner.domain.wording import counted
from planner.domain.workload import ObservedWindow
from planner.service.documents.fleet import FleetDocument, fleet_document, fleet_of
from planner.service.keeping import Keeping
from planner.service.security.redaction import redact
from planner.service.store import (
    approvals,
    audit,
    backlogs,
    decisions,
    forecasts,
    gate_requests,
    instances,
    known_pools,
    observations,
    plans,
    stock_outs,
)
from planner.service.store.approval_log import ApprovalLog
from planner.service.store.audit import AuditCheck
from planner.service.store.audit import add as _audit
from planner.service.store.calibrations import StoredCalibrations
from planner.service.store.database import Access, open_engine
from planner.service.store.directives import Directive, StoredDirectives
from planner.service.store.in_force import check_spec, check_still
from planner.service.store.instants import instant, stamp
from planner.service.store.leases import Fence, StoredLease, check
from planner.service.store.orders import StoredOrders
from planner.service.store.records import (
    AuditEntry,
    BegunStep,
    DecisionRecord,
    ForecastOutcome,
    GateHour,
    KnownPool,
    PlanRecord,
    StoredFleet,
    StoredForecast,
    StoredWindow,
)
from planner.service.store.retention import Upkeep
from planner.service.store.tables import FLEETS
from planner.service.store.tokens import StoredTokens
from serving.gate.records import RequestRecord


def open_store(url: str) -> "Store":
    """The store behind a SQLAlchemy URL, migrated to the newest schema.

    Raises
    ------
    StoreError
        When it cannot be opened.
    """
    return Store(open_engine(url))


class Store:
    """Reads and writes; safe to use from several threads."""

    def __init__(self, engine: Engine, fence: Fence | None = None) -> None:
        self._engine = engine
        self._fence = fence
        self._where = redact(engine.url.render_as_string(hide_password=True))

    def close(self) -> None:
        """Give up the connections."""
        self._engine.dispose()

    def lease(self, name: str) -> StoredLease:
        """The lease of this name, and who led under it."""
        return StoredLease(self._engine, name, self._where)

    def orders(self, deployment: str) -> StoredOrders:
        """What was left for the leader of a deployment."""
        return StoredOrders(self._engine, deployment, self._where)

    def upkeep(self, deployment: str, keeping: Keeping, *, newest: int, now: datetime) -> Upkeep:
        """What is to be done now so that things are kept as long as they should be."""
        return Upkeep(self._read, self._write, deployment, keeping, newest=newest, now=now)

    def directives(self, deployment: str) -> StoredDirectives:
        """What people ordered of a deployment at run time."""
        return StoredDirectives(deployment, self._read, self._write)

    def put_backlog(self, deployment: str, backlog: Backlog) -> None:
        """Keep what waits; no audit line, it is told every few seconds."""
        with self._write() as connection:
            backlogs.put(connection, deployment, backlog)

    def backlog(self, deployment: str, model: str) -> Backlog | None:
        """What waited when it was last told, or None."""
        with self._read() as connection:
            return backlogs.newest(connection, deployment, model)

    def tokens(self) -> StoredTokens:
        """Who may use the API."""
        return StoredTokens(self._engine, self._where)

    def calibrations(self, deployment: str) -> StoredCalibrations:
        """What was learned of a deployment's profiles."""
        return StoredCalibrations(self._engine, deployment, self._where, self._fence)

    def approval_log(self, deployment: str) -> ApprovalLog:
        """The states of a deployment's plans, one after the other."""
        return ApprovalLog(self._engine, deployment, self._where)

    def fenced(self, fence: Fence) -> "Store":
        """The same store for a leader: its writes raise NotLeaderError once a newer term began."""
        return Store(self._engine, fence)

    def ping(self) -> None:
        """Raise StoreError when the database does not answer."""
        with self._read() as connection:
            connection.execute(select(1))

    def instance(self) -> str:
        """A short name of this database: the same for all who share it, and after a restart."""
        return instances.named(self.access)

    def add_plan(self, record: PlanRecord, *, actor: str) -> PlanRecord:
        """Store a plan with its first state; the stored one when its id is known already.

        A stored draft that is a draft no longer, or for another reason, takes the new diff and
        what guards say of it.

        Raises
        ------
        OvertakenError
            When another spec than the plan's is in force by now.
        """
        with self._write() as connection:
            check_spec(connection, record)
            plans.add(connection, record, actor=actor)
        return self.plan(record.plan.plan_id)

    def plan(self, plan_id: str) -> PlanRecord:
        """One plan.

        Raises
        ------
        UnknownPlanError
            When there is none under this id.
        """
        with self._read() as connection:
            found = plans.find(connection, [plan_id])
        if not found:
            raise UnknownPlanError(
                f"no plan {plan_id} is stored; `GET /v1/plans` lists the known ones"
            )
        return found[0]

    def plans(
        self,
        deployment: str | Sequence[str],
        *,
        limit: int,
        states: Sequence[ApprovalState] = (),
        after: tuple[datetime, str] | None = None,
    ) -> tuple[PlanRecord, ...]:
        """The newest plans of a deployment or of several, newest first; of these states, if given.

        Parameters
        ----------
        after : (datetime, str) or None
            Instant and id of a plan: only those that follow it in this order.
        """
        names = (deployment,) if isinstance(deployment, str) else deployment
        with self._read() as connection:
            ids = plans.ids(connection, names, limit=limit, states=states, after=after)
            return plans.find(connection, ids)

    def change_approval(
        self,
        plan_id: str,
        change: Callable[[Approval], Approval],
        *,
        action: str,
        revision: int | None = None,
        orders: Sequence[Directive] | None = None,
    ) -> Approval:
        """Append the state that `change` makes of the newest one, in one transaction.

        Of a deployment one plan at a time is applied or rolled back.

        Parameters
        ----------
        change : callable
            Raises PlanStateError where the newest state does not allow the step; nothing is
            stored then. Returning the state unchanged stores nothing either.
        action : str
            For the audit log.
        revision : int or None
            `PlanRecord.revision` that the newest state must be; None: whichever it is.
        orders : sequence of Directive or None
            As `check_still`.

        Raises
        ------
        OvertakenError
            As `check_still`.
        PlanChangedError
            When it is another one.
        PlanStateError
            When the plan would begin to move the fleet while another one does.
        """
        with self._write() as connection:
            deployment = plans.deployment_of(connection, plan_id)
            if deployment is None:
                raise UnknownPlanError(f"no plan {plan_id} is stored")
            before = approvals.newest(connection, plan_id)
            approvals.check_revision(connection, before, revision)
            after = change(before)
            check_still(connection, before, after, orders)
            if after.state.moves and not before.state.moves:
                approvals.check_alone(connection, deployment)
            if after != before:
                approvals.append(connection, after)
                _audit(
                    connection,
                    after.changed_at,
                    after.changed_by,
                    action,
                    plan_id,
                    detail=after.reason,
                )
        return after

    def approvals(self, plan_id: str) -> tuple[Approval, ...]:
        """Every state that a plan was in, oldest first."""
        with self._read() as connection:
            return approvals.states(connection, plan_id)

    def begin_step(
        self, run: Approval, step: BegunStep, *, allowed: Callable[[Connection], None] | None = None
    ) -> None:
        """Keep that a step of a plan is begun, as long as the plan is where `run` left it.

        Raises
        ------
        PlanStateError
            When it is not; the step must not be taken then. Also what `allowed` raises, which
            looks in the same transaction.
        """
        with self._write() as connection:
            if allowed is not None:
                allowed(connection)
            approvals.begin_step(connection, run, step)
            by, plan_id = run.changed_by, run.plan_id
            _audit(connection, step.begun_at, by, "plan.step", plan_id, detail=step.what)

    def steps(self, plan_id: str) -> tuple[BegunStep, ...]:
        """Every step of a plan that was ever begun, oldest first."""
        with self._read() as connection:
            return approvals.steps(connection, plan_id)

    def add_stock_out(self, deployment: str, found: StockOut, *, at: datetime, actor: str) -> None:
        """Remember an accelerator that could not be had, for as long as that counts."""
        with self._write() as connection:
            stock_outs.add(connection, deployment, found, at=at)
            detail = f"{found.usable} {found.accelerator} until {stamp(found.until_at)}"
            _audit(connection, at, actor, "stock_out.add", deployment, detail=detail)

    def stock_outs(self, deployment: str, *, at: datetime) -> tuple[StockOut, ...]:
        """What a deployment could not have lately, as far as that counts at an instant."""
        with self._read() as connection:
            return stock_outs.lasting(connection, deployment, at=at)

    def known_pools(self, deployment: str) -> dict[str, KnownPool]:
        """A deployment's pools as Poolwise left them, by label; none before the first look."""
        with self._read() as connection:
            return known_pools.known(connection, deployment)

    def put_known_pools(
        self, deployment: str, pools: Iterable[KnownPool], *, told: Mapping[str, str], at: datetime
    ) -> None:
        """Keep the pools as they are now known.

        Parameters
        ----------
        told : mapping of str to str
            By label what the audit log is told: who else changed them.
        """
        with self._write() as connection:
            known_pools.put(connection, deployment, pools)
            for pool, detail in told.items():
                _audit(connection, at, "unknown", "fleet.changed_by_others", pool, detail=detail)

    def add_windows(
        self,
        deployment: str,
        model: str,
        windows: Sequence[ObservedWindow],
        *,
        received_at: datetime,
        actor: str,
    ) -> int:
        """Store observed windows; older ones of the same class and the same seconds give way.

        Those of seconds that are summed up to an hour by now are left out: they would count twice.

        Returns
        -------
        int
            How many were stored.
        """
        with self._write() as connection:
            count = observations.add(connection, deployment, model, windows, at=received_at)
            left_out = len(windows) - count
            detail = f"{counted(count, 'window')}"
            if left_out:
                detail += f", {left_out} left out: their hours are summed up already"
            _audit(connection, received_at, actor, "observations.add", deployment, detail=detail)
        return count

    def windows(self, deployment: str, model: str, *, limit: int) -> tuple[StoredWindow, ...]:
        """The newest observed windows of a model, so many of each class, oldest first."""
        with self._read() as connection:
            return observations.newest(connection, deployment, model, limit=limit)

    def windows_overlapping(
        self, deployment: str, model: str, *, start_at: datetime, end_at: datetime
    ) -> tuple[ObservedWindow, ...]:
        """The observed windows of a model that touch [start_at, end_at), oldest first."""
        with self._read() as connection:
            return observations.overlapping(
                connection, deployment, model, start_at=start_at, end_at=end_at
            )

    def add_forecast(self, deployment: str, forecast: Forecast) -> None:
        """Keep what a tick expected; see `store.forecasts` for how long."""
        with self._write() as connection:
            forecasts.add(connection, deployment, forecast)

    def newest_forecast(
        self, deployment: str, model: str, *, by: datetime | None = None
    ) -> Forecast | None:
        """The newest forecast of a model, made by an instant where one is given, or None."""
        with self._read() as connection:
            return forecasts.newest(connection, deployment, model, by=by)

    def forecasts_since(
        self, deployment: str, model: str, *, since: datetime
    ) -> tuple[tuple[StoredForecast, frozenset[int]], ...]:
        """Forecasts made since an instant, each with its windows whose outcome is known."""
        with self._read() as connection:
            made = forecasts.made_since(connection, deployment, model, since=since)
            known = forecasts.known_since(connection, deployment, model, since=since)
        return tuple(
            (one, frozenset(ahead for made_at, ahead in known if made_at == one.made_at))
            for one in made
        )

    def add_forecast_outcomes(
        self, deployment: str, model: str, outcomes: Sequence[ForecastOutcome]
    ) -> tuple[ForecastOutcome, ...]:
        """Keep what came of forecasts; those outcomes that were not known yet."""
        if not outcomes:
            return ()
        with self._write() as connection:
            return forecasts.add_outcomes(connection, deployment, model, outcomes)

    def forecast_outcomes(
        self, deployment: str, model: str, *, limit: int
    ) -> tuple[ForecastOutcome, ...]:
        """The newest outcomes of a model's forecasts, newest window first."""
        with self._read() as connection:
            return forecasts.outcomes(connection, deployment, model, limit=limit)

    def add_gate_requests(
        self,
        deployment: str,
        records: Sequence[RequestRecord],
        *,
        now: datetime,
        retention_s: float,
    ) -> None:
        """Keep what a gate saw of requests; after so long their hours only.

        There is no audit line, they are too many.
        """
        with self._write() as connection:
            gate_requests.add(connection, deployment, records, now=now, retention_s=retention_s)

    def gate_requests_since(
        self, deployment: str, *, start_at: datetime, limit: int
    ) -> tuple[RequestRecord, ...]:
        """The newest requests through a gate since an instant, oldest first."""
        with self._read() as connection:
            return gate_requests.since(connection, deployment, start_at=start_at, limit=limit)

    def gate_hours(
        self, deployment: str, *, start_at: datetime, limit: int
    ) -> tuple[GateHour, ...]:
        """What old requests through a gate are summed up to, oldest hour first."""
        with self._read() as connection:
            return gate_requests.hours(connection, deployment, start_at=start_at, limit=limit)

    def put_fleet(
        self, deployment: str, fleet: Fleet, *, received_at: datetime, actor: str
    ) -> None:
        """Remember the fleet that a deployment has now."""
        with self._write() as connection:
            connection.execute(delete(FLEETS).where(FLEETS.c.deployment == deployment))
            text = fleet_document(fleet).model_dump_json()
            connection.execute(
                insert(FLEETS).values(
                    deployment=deployment, received_at=stamp(received_at), fleet=text
                )
            )
            _audit(connection, received_at, actor, "fleet.put", deployment, detail=fleet.version)

    def fleet(self, spec: Spec) -> StoredFleet | None:
        """The fleet that was last handed in for the spec's deployment, or None."""
        query = select(FLEETS).where(FLEETS.c.deployment == spec.name)
        with self._read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        received_at = instant(row["received_at"])
        document = FleetDocument.model_validate_json(row["fleet"])
        fleet = fleet_of(document, spec=spec, read_at=received_at, where="stored fleet")
        return StoredFleet(received_at=received_at, fleet=fleet)

    def add_decision(
        self,
        record: DecisionRecord,
        parts: Mapping[str, str] = MappingProxyType({}),
        *,
        at: datetime | None = None,
    ) -> int:
        """Remember, at an instant, what a tick did, and from what texts; the decision's id."""
        with self._write() as connection:
            return decisions.add(connection, record, parts, at=at)

    def decisions(
        self, deployment: str, *, limit: int, before: int | None = None
    ) -> tuple[DecisionRecord, ...]:
        """The newest decisions of a deployment, newest first; before one, where it is named."""
        with self._read() as connection:
            return decisions.newest(connection, deployment, limit=limit, before=before)

    def decision(self, deployment: str, decision_id: int) -> tuple[DecisionRecord, dict[str, str]]:
        """A decision and its parts; none where they are not kept. Raises UnknownDecisionError."""
        with self._read() as connection:
            return decisions.one(connection, deployment, decision_id)

    def audit(self, *, limit: int, before: int | None = None) -> tuple[AuditEntry, ...]:
        """The newest lines of the audit log, newest first; before a line, where one is named."""
        with self._read() as connection:
            return audit.newest(connection, limit=limit, before=before)

    def verify_audit(self, *, expect: str | None = None) -> AuditCheck:
        """Whether the audit log is as it was written; see `store.audit.verify`."""
        with self._read() as connection:
            return audit.verify(connection, expect=expect)

    def add_audit(self, at: datetime, actor: str, action: str, subject: str, detail: str) -> None:
        """A line on something that changes nothing else here, such as a refusal."""
        with self._write() as connection:
            _audit(connection, at, actor, action, subject, detail=detail)

    @property
    def access(self) -> Access:
        """The database, for parts with tables of their own; no fence holds there."""
        return Access(engine=self._engine, where=self._where)

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self.access.reading() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self.access.writing() as connection:
            if self._fence is not None:
                check(connection, self._fence)
            yield connection
