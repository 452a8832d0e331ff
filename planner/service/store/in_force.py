"""What a plan was made under has to be in force still when it is stored, approved and begun.

Planning takes seconds, and meanwhile people put another spec, change the loop's mode, pause or pin.
Whoever looked at the start knows nothing of it, so it is looked at again in the very transaction
that writes: there is one writer at a time.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, select

from planner.domain.errors import GuardRefusedError, OvertakenError
from planner.domain.rollout import Approval, ApprovalState
from planner.service.store import plans
from planner.service.store.directives import Directive, directives_of
from planner.service.store.records import PlanRecord
from planner.service.store.tables import DEPLOYMENTS, SPECS

WAITING = (ApprovalState.DRAFT, ApprovalState.PENDING, ApprovalState.APPROVED)
LEADING = (ApprovalState.PENDING, ApprovalState.APPROVED, ApprovalState.APPLYING)
"""States that lead to the fleet, from one of those before: a plan that failed on its way is
completed all the same."""


def check_still(
    connection: Connection,
    before: Approval,
    after: Approval,
    orders: Sequence[Directive] | None,
) -> None:
    """Refuse a step towards the fleet under what is no longer in force.

    Parameters
    ----------
    orders : sequence of Directive or None
        Those that were in force when the loop began to decide; None: a person decides.

    Raises
    ------
    OvertakenError
    """
    if after == before or after.state not in LEADING or before.state not in WAITING:
        return
    (record,) = plans.find(connection, [after.plan_id])
    check_spec(connection, record)
    if orders is not None:
        _check_orders(connection, record, orders)


def check_spec(connection: Connection, record: PlanRecord) -> None:
    """Refuse a plan for a spec that another one has replaced, or for a deployment that is retired.

    Deployments of which no spec is stored (no server serves them) are let through.

    Raises
    ------
    OvertakenError
    """
    name, made_under = record.deployment, record.plan.inputs.spec_id
    plan_id = record.plan.plan_id
    retired = connection.execute(
        select(DEPLOYMENTS.c.retired).where(DEPLOYMENTS.c.deployment == name)
    ).scalar_one_or_none()
    if retired:
        raise OvertakenError(
            f"plan {plan_id} is of no use any more: deployment {name} is retired", for_good=True
        )
    now = connection.execute(
        select(SPECS.c.spec_id)
        .where(SPECS.c.deployment == name)
        .order_by(SPECS.c.version.desc())
        .limit(1)
    ).scalar_one_or_none()
    if now is not None and now != made_under:
        raise OvertakenError(
            f"plan {plan_id} was made under {made_under}, and now {now} is in force: plan again",
            for_good=True,
        )


def check_step(
    connection: Connection,
    deployment: str,
    known: Sequence[Directive],
    stops: Callable[[Directive], bool],
) -> None:
    """Refuse the next step of a rollout that somebody has ordered to stop since it was decided.

    Parameters
    ----------
    known : sequence of Directive
        Orders by which it was decided.
    stops : callable
        Whether an order is against this step.

    Raises
    ------
    GuardRefusedError
    """
    now = directives_of(connection, deployment)
    against = [one.sentence for one in now if one not in known and stops(one)]
    if against:
        raise GuardRefusedError(f"ordered meanwhile: {'; '.join(against)}")


def _check_orders(connection: Connection, record: PlanRecord, known: Sequence[Directive]) -> None:
    now = directives_of(connection, record.deployment)
    changed = [f"{one.sentence} (new)" for one in now if one not in known]
    changed += [f"{one.sentence} (no longer)" for one in known if one not in now]
    if changed:
        raise OvertakenError(
            f"plan {record.plan.plan_id} was decided before orders changed: {'; '.join(changed)}; "
            "the next tick goes by them",
            for_good=False,
        )
