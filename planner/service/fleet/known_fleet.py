"""The fleet with what Poolwise knows of it: replicas that did not come, and hands of others.

Known are the counts as Poolwise left them, or first saw them. A target whose counts only writers
change (Kubernetes) has other ones later only where somebody else wrote them: that is kept, told,
and not fought over. A replica that missed its deadline is stuck from then on.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType

from actuators.actuator import MadeOfTemplates
from actuators.kubernetes.templates import BrokenTemplateError
from planner.domain.errors import PoolwiseError
from planner.domain.fleet import Fleet, Pool
from planner.domain.rollout import Diff, Step, StepKind
from planner.domain.spec import TargetKind
from planner.domain.wording import counted
from planner.rollout.effects import applied, pools_before
from planner.service.deployment import Deployment
from planner.service.store import BrokenTemplate, KnownPool

Span = tuple[int, int]
"""The least and the most replicas that a pool may have by what Poolwise wrote."""


def read(deployment: Deployment) -> Fleet:
    """Read the fleet; replicas that missed their deadline are stuck, not starting."""
    fleet = deployment.actuator.read_fleet()
    if not _remembers(deployment, fleet):
        return fleet
    return _with_stuck(fleet, deployment.store.known_pools(deployment.spec.name), deployment.model)


def look(deployment: Deployment, *, at: datetime) -> Fleet:
    """Read the fleet, and keep what somebody else has changed since Poolwise left it.

    Only the leader keeps anything, and only while it moves nothing itself.
    """
    store, name = deployment.store, deployment.spec.name
    known = store.known_pools(name)
    fleet = deployment.actuator.read_fleet()
    if not _remembers(deployment, fleet):
        return fleet
    still = deployment.leads() and deployment.moving() is None
    if still and store.known_pools(name) == known:
        asked, starting = _asked(fleet.pools, deployment), _starting(fleet, deployment)
        spans = {label: (one.replicas, one.replicas) for label, one in known.items()}
        stuck = {label: one.late for label, one in known.items()}
        now = _known_now(known, asked, spans, stuck, starting, at=at)
        now = _without_changed_templates(deployment, now)
        _keep(deployment, known, now, at=at)
        known = now
    return _with_stuck(fleet, known, deployment.model)


def left_by(
    deployment: Deployment,
    diff: Diff,
    steps: range,
    *,
    late: bool,
    at: datetime,
    broken: BrokenTemplateError | None = None,
) -> None:
    """Keep what a run has left, before anybody is told that it is over.

    Parameters
    ----------
    steps : range
        From those that are surely done to those that were begun.
    late : bool
        What was waited for did not come in time.
    broken : BrokenTemplateError or None
        What it is made of does not start.
    """
    if deployment.spec.target is not TargetKind.KUBERNETES:
        return
    states, pools = [], pools_before(diff.from_fleet, diff.steps)
    for number, step in enumerate((None, *diff.steps[: steps.stop])):
        pools = pools if step is None else applied(pools, step)
        if number >= steps.start:
            states.append(_asked(pools.values(), deployment))
    first, last = _asked(diff.from_fleet.pools, deployment), pools.values()
    spans = {
        label: (min(s.get(label, 0) for s in states), max(s.get(label, 0) for s in states))
        for label in {*first, *states[-1]}
    }
    stuck = _sum(last, deployment, lambda p: p.stuck)
    moved = {label for label, span in spans.items() if span != (first.get(label, 0),) * 2}
    awaited = _awaited(diff.steps[: steps.stop]) if late else set()
    came = {s.shape.label for s in diff.steps[: steps.start] if s.kind is StepKind.ROUTE}
    marked = _marked(deployment, came, broken, at=at)
    _left(deployment, spans, stuck, moved=moved, awaited=awaited, at=at, marked=marked)


def left_behind(deployment: Deployment, end: Diff, *, at: datetime) -> None:
    """Keep what a process that is gone has left on its way to the end of a diff."""
    if deployment.spec.target is not TargetKind.KUBERNETES:
        return
    known = deployment.store.known_pools(deployment.spec.name)
    pools = pools_before(end.from_fleet, end.steps)
    for step in end.steps:
        pools = applied(pools, step)
    led_to, spans = _asked(pools.values(), deployment), {}
    for label, one in known.items():
        counts = (one.replicas, led_to.get(label, one.replicas))
        spans[label] = (min(counts), max(counts))
    moved = {label for label, (least, most) in spans.items() if least != most}
    late = {label: one.late for label, one in known.items()}
    _left(deployment, spans, late, moved=moved, awaited=set(), at=at)


def edited_since(deployment: Deployment, since: datetime) -> str:
    """What somebody else has changed since an instant; empty: nothing."""
    known = deployment.store.known_pools(deployment.spec.name).values()
    return "; ".join(
        f"{one.pool} has {counted(one.replicas, 'replica')}, not {one.edited_from}: somebody "
        "else changed it"
        for one in known
        if one.edited_at is not None and one.edited_at >= since
    )


def _left(
    deployment: Deployment,
    spans: Mapping[str, Span],
    stuck: Mapping[str, int],
    *,
    moved: set[str],
    awaited: set[str],
    at: datetime,
    marked: Mapping[str, BrokenTemplate | None] = MappingProxyType({}),
) -> None:
    before = deployment.store.known_pools(deployment.spec.name)
    known = {
        label: replace(one, edited_at=None, edited_from=None) if label in moved else one
        for label, one in before.items()
    }
    try:
        fleet = deployment.actuator.read_fleet()
    except PoolwiseError:  # the next look says what it is then
        asked, starting = {label: span[1] for label, span in spans.items()}, dict(stuck)
    else:
        asked, starting = _asked(fleet.pools, deployment), _starting(fleet, deployment)
    stuck = dict(stuck) | {label: starting.get(label, 0) for label in awaited}
    known |= {label: KnownPool(pool=label, replicas=0) for label in spans if label not in known}
    now = _known_now(known, asked, spans, stuck, starting, at=at)
    now |= {label: replace(now[label], broken=one) for label, one in marked.items() if label in now}
    _keep(deployment, before, now, at=at)


def _marked(
    deployment: Deployment, came: set[str], broken: BrokenTemplateError | None, *, at: datetime
) -> dict[str, BrokenTemplate | None]:
    """Pools of which it is news whether their template starts: those that came, one that did not.

    Another failure of the same template counts beside those before it.
    """
    marked: dict[str, BrokenTemplate | None] = dict.fromkeys(came)
    if broken is not None:
        known = deployment.store.known_pools(deployment.spec.name).get(broken.pool)
        last = None if known is None else known.broken
        times = 1 if last is None or last.template != broken.template else last.times + 1
        marked[broken.pool] = BrokenTemplate(
            template=broken.template, times=times, at=at, why=broken.why
        )
    return marked


def _without_changed_templates(
    deployment: Deployment, now: Mapping[str, KnownPool]
) -> dict[str, KnownPool]:
    """Somebody who changed a template has mended it, or will be told again."""
    actuator = deployment.actuator
    found = actuator.templates() if isinstance(actuator, MadeOfTemplates) else {}
    templates = {s.label: told for s, told in found.items() if s.model == deployment.model}
    kept = {}
    for label, one in now.items():
        broken = one.broken
        changed = broken is not None and broken.template not in templates.get(
            label, (broken.template,)
        )
        kept[label] = replace(one, broken=None) if changed else one
    return kept


def _known_now(
    known: Mapping[str, KnownPool],
    asked: Mapping[str, int],
    spans: Mapping[str, Span],
    stuck: Mapping[str, int],
    starting: Mapping[str, int],
    *,
    at: datetime,
) -> dict[str, KnownPool]:
    """Every pool as it is found: what lies outside its span was changed by somebody else."""
    now = {}
    for label in sorted({*known, *asked}):
        found = asked.get(label, 0)
        least, most = spans.get(label, (found, found))
        one = known.get(label) or KnownPool(pool=label, replicas=found)
        if not least <= found <= most:
            one = replace(one, edited_at=at, edited_from=most if found > most else least)
        late = min(stuck.get(label, 0), starting.get(label, 0))
        now[label] = replace(one, replicas=found, late=late)
    return now


def _keep(
    deployment: Deployment,
    before: Mapping[str, KnownPool],
    now: Mapping[str, KnownPool],
    *,
    at: datetime,
) -> None:
    if now == before:
        return
    told = {
        label: f"{one.edited_from} -> {counted(one.replicas, 'replica')}"
        for label, one in now.items()
        if one.edited_at == at and one != before.get(label)
    }
    deployment.store.put_known_pools(deployment.spec.name, now.values(), told=told, at=at)


def _remembers(deployment: Deployment, fleet: Fleet) -> bool:
    return deployment.spec.target is TargetKind.KUBERNETES and not fleet.by_cell


def _with_stuck(fleet: Fleet, known: Mapping[str, KnownPool], model: str) -> Fleet:
    left = {label: one.late for label, one in known.items() if one.late}
    pools = []
    for pool in fleet.pools:
        late = 0
        if pool.shape.model == model:
            late = min(pool.starting, left.get(pool.shape.label, 0))
            left[pool.shape.label] = left.get(pool.shape.label, 0) - late
        pools.append(replace(pool, starting=pool.starting - late, stuck=late))
    return replace(fleet, pools=tuple(pools))


def _awaited(steps: tuple[Step, ...]) -> set[str]:
    """Pools whose replicas the last of these steps waited for."""
    coming = (StepKind.START, StepKind.ROUTE)
    if not steps or steps[-1].kind not in coming:
        return set()
    return {step.shape.label for step in steps if step.kind in coming}


def _asked(pools: Iterable[Pool], deployment: Deployment) -> dict[str, int]:
    return _sum(pools, deployment, lambda p: p.asked)


def _starting(fleet: Fleet, deployment: Deployment) -> dict[str, int]:
    return _sum(fleet.pools, deployment, lambda p: p.starting)


def _sum(
    pools: Iterable[Pool], deployment: Deployment, count: Callable[[Pool], int]
) -> dict[str, int]:
    found: dict[str, int] = {}
    for pool in pools:
        if pool.shape.model == deployment.model:
            found[pool.shape.label] = found.get(pool.shape.label, 0) + count(pool)
    return found
