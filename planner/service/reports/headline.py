"""The answer in three sentences, and the key figures."""

from dataclasses import dataclass

from planner.domain.fleet import Fleet
from planner.domain.plan import PlanStatus
from planner.service.demo.describe import USD_PER_SLOT_HOUR
from planner.service.demo.outcome import MeasuredWindow, Outcome
from planner.service.reports.quantities import (
    MISSING,
    counted,
    duration,
    long_fleet,
    sentence,
    share,
    short_fleet,
    usd_per_hour,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFigure:
    """A figure before and after.

    Parameters
    ----------
    kept : bool or None
        Whether the promise is kept after; None where nothing was promised or measured.
    """

    name: str
    before: str
    after: str
    note: str
    kept: bool | None = None

    @property
    def measured(self) -> bool:
        """Whether there is anything to show."""
        return self.after != MISSING or self.before != MISSING

    @property
    def changed(self) -> bool:
        """Whether before and after differ as they are written."""
        return self.before != self.after


def answer(outcome: Outcome) -> tuple[str, ...]:
    """Say what was measured, what was changed, and whether attainment rose."""
    verdict = outcome.verdict[0] if outcome.verdict else "no verdict was reached"
    return (_measured(outcome), _changed(outcome), sentence(verdict))


def reasons(outcome: Outcome) -> tuple[str, ...]:
    """The rest of the verdict: why, where attainment did not rise."""
    return tuple(sentence(text) for text in outcome.verdict[1:])


def key_figures(outcome: Outcome) -> tuple[KeyFigure, ...]:
    """Attainment, latencies, fleet and cost, before and after."""
    was, now, slo = outcome.before.latency, outcome.after.latency, outcome.slo
    attained = now.attainment_ratio
    return (
        KeyFigure(
            name="Attainment",
            before=share(was.attainment_ratio),
            after=share(attained),
            note=f"promised {share(slo.attainment_ratio)}",
            kept=None if attained is None else attained >= slo.attainment_ratio,
        ),
        _latency("TTFT, 95th percentile", was.ttft_p95_s, now.ttft_p95_s, slo.ttft_s),
        _latency("TPOT, 95th percentile", was.tpot_p95_s, now.tpot_p95_s, slo.tpot_s),
        KeyFigure(
            name="Fleet",
            before=short_fleet(outcome.before.fleet),
            after=short_fleet(outcome.after.fleet),
            note=_fleets(outcome),
        ),
        KeyFigure(
            name="Cost, USD/h",
            before=f"{_usd_per_hour(outcome.before.fleet):.3f}",
            after=f"{_usd_per_hour(outcome.after.fleet):.3f}",
            note=f"the plan: {_planned_cost(outcome)}",
        ),
    )


def _latency(name: str, was: float | None, now: float | None, promised_s: float) -> KeyFigure:
    return KeyFigure(
        name=name,
        before=duration(was),
        after=duration(now),
        note=f"promised {duration(promised_s)}",
        kept=None if now is None else now <= promised_s,
    )


def _fleets(outcome: Outcome) -> str:
    was, now = long_fleet(outcome.before.fleet), long_fleet(outcome.after.fleet)
    return f"{now}, unchanged" if was == now else f"{was}, then {now}"


def _usd_per_hour(fleet: Fleet) -> float:
    return USD_PER_SLOT_HOUR * sum(p.accelerators for p in fleet.pools)


def _planned_cost(outcome: Outcome) -> str:
    windows = outcome.plan.windows
    return usd_per_hour(windows[0].usd_per_hour) if windows else "none was found"


def _measured(outcome: Outcome) -> str:
    before, now = outcome.before, outcome.after
    return (
        f"On this machine, {long_fleet(before.fleet)} answered {_window(before)} of warm-up, "
        f"and {long_fleet(now.fleet)} answered {_window(now)} at the end, every token timed."
    )


def _window(measured: MeasuredWindow) -> str:
    replay = measured.replay
    failed = len(replay.failures)
    requests = counted(len(replay.timings) - failed, "request")
    missed = f" ({counted(failed, 'request')} failed)" if failed else ""
    return f"{requests}{missed} in {duration(replay.workload.duration_s)}"


def _changed(outcome: Outcome) -> str:
    steps = outcome.diff.steps
    if outcome.plan.status is PlanStatus.INFEASIBLE and not outcome.applied:
        return "Nothing was changed: no fleet within the limits could keep the promise."
    if not steps:
        return "Nothing was changed: the plan asks for the fleet that was already there."
    if not outcome.applied:
        why = f" ({outcome.approval.reason})" if outcome.approval.reason else ""
        return (
            f"Nothing was changed: the plan has {counted(len(steps), 'step')}, but it is "
            f"{outcome.approval.state.replace('_', ' ')}{why}."
        )
    took_s = max(r.began_s + r.took_s for r in outcome.applied) - outcome.applied[0].began_s
    return (
        f"Poolwise planned from that first window and moved the fleet from "
        f"{short_fleet(outcome.before.fleet)} to {short_fleet(outcome.after.fleet)}, "
        f"{counted(len(outcome.applied), 'step')} in {duration(took_s)}, while traffic ran"
        f"{_meanwhile(outcome)}."
    )


def _meanwhile(outcome: Outcome) -> str:
    if outcome.during is None:
        return ""
    failed = len(outcome.during.failures)
    arrived = counted(len(outcome.during.timings), "request")
    return f"; {arrived} arrived meanwhile, {failed or 'none'} failed"
