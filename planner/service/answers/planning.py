"""The pure stages put together for one question: forecast, plan, recommend.

Nothing here is stored or applied; the CLI and the API ask these, the loop asks the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from forecaster.forecast import forecast
from forecaster.memory import Memory
from forecaster.readers import ReadReport, TraceFormat, read_trace
from forecaster.rescale import spread_ticks
from forecaster.windows import arrival_cv2_of, observe_windows
from planner.autoscale.in_cells import in_cells
from planner.autoscale.slow import Decision, decide
from planner.domain.errors import (
    EmptyTraceError,
    HistoryError,
    InputError,
    OutsideProfileError,
    SolverError,
    SpecError,
    TraceError,
)
from planner.domain.fleet import Fleet
from planner.domain.forecast import Forecast
from planner.domain.plan import Plan, PlanStatus
from planner.domain.rollout import Diff, GuardFinding
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.spec import Spec
from planner.domain.wording import counted
from planner.domain.workload import ObservedWindow, Workload
from planner.optimize import plan
from planner.rollout import GuardConditions
from planner.service.answers.assumed_shapes import with_assumed_shapes
from planner.service.answers.reach import check_reach
from planner.service.spec.problems import did_you_mean
from planner.service.spec.what_if import WhatIf

UNPLANNABLE = (OutsideProfileError, SolverError, SpecError)
"""Why a spec that was read cannot be planned."""

MOST_TOKENS_PER_S = 1e12
"""Of one request class; the largest public services serve some 1e7 a second in all."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TraceHistory:
    """A trace cut into observed windows.

    Parameters
    ----------
    ended_at : datetime
        End of the last whole window.
    arrival_cv2 : float
        Squared variation of the gaps between arrivals; 1 is Poisson.
    """

    workload: Workload
    report: ReadReport
    windows: tuple[ObservedWindow, ...]
    ended_at: datetime
    arrival_cv2: float


def sole_model(spec: Spec, name: str | None) -> str:
    """The model that is asked about: by name, or the spec's only one.

    Raises
    ------
    SpecError
        When it is not in the spec, or the spec has several and none was named.
    """
    names = [model.name for model in spec.models]
    if name is None:
        if len(names) > 1:
            raise SpecError(f"the spec has {len(names)} models: name one of {', '.join(names)}")
        return names[0]
    if name not in names:
        raise SpecError(f"model `{name}` is not in the spec{did_you_mean(name, names)}")
    return name


def read_requests(
    path: Path,
    *,
    start_at: datetime | None = None,
    trace_format: TraceFormat | None = None,
    accept_jump: bool = False,
    until: datetime | None = None,
) -> tuple[Workload, ReadReport]:
    """A trace's requests; those on a coarse clock are spread inside each tick.

    Such a clock stamps many arrivals alike, which would look like bursts. For `accept_jump` and
    `until` see `read_trace`.

    Raises
    ------
    TraceError
        When the file is not usable.
    """
    if start_at is not None and start_at.tzinfo is None:
        start_at = start_at.replace(tzinfo=UTC)
    trace = read_trace(
        path,
        trace_format=trace_format,
        start_at=start_at,
        accept_jump=accept_jump,
        until=until,
    )
    tick_s = trace.report.arrival_tick_s
    if tick_s is None:
        return trace.workload, trace.report
    rng = np.random.default_rng(0)
    return spread_ticks(trace.workload, tick_s=tick_s, rng=rng), trace.report


def trace_history(
    path: Path,
    *,
    window_s: float,
    trace_format: TraceFormat | None = None,
    start_at: datetime | None = None,
    at: datetime | None = None,
) -> TraceHistory:
    """A trace file as observed windows, up to `at`; nothing that comes later changes them.

    Raises
    ------
    TraceError
        When the file is not usable, or no whole window lies before `at`.
    """
    workload, report = read_requests(path, start_at=start_at, trace_format=trace_format, until=at)
    windows = whole_windows(workload, path=path, window_s=window_s, at=at)
    return TraceHistory(
        workload=workload,
        report=report,
        windows=windows,
        ended_at=max(window.end_at for window in windows),
        arrival_cv2=arrival_cv2_of(workload),
    )


def whole_windows(
    workload: Workload, *, path: Path, window_s: float, at: datetime | None = None
) -> tuple[ObservedWindow, ...]:
    """The whole windows of a trace that end by `at`.

    Raises
    ------
    EmptyTraceError
        When there is none.
    """
    windows = observe_windows(workload, window_s)
    if at is not None:
        windows = tuple(window for window in windows if window.end_at <= at)
    if not windows:
        # Of a trace in relative time the beginning is told only beside an instant to compare.
        begins = f" from {workload.start_at.isoformat()}" if at else ""
        until = f" before {at.isoformat()}" if at else ""
        requests = len(workload)
        raise EmptyTraceError(
            where=str(path),
            what=f"{counted(requests, 'request')} in {workload.duration_s:,.0f} s{begins}, "
            f"not one whole window of {window_s:g} s{until}",
            remedy="give a longer trace, or use shorter windows (forecast.window_s)",
            requests=requests,
        )
    return windows


def expected_demand(
    spec: Spec,
    windows: Sequence[ObservedWindow],
    *,
    model: str,
    made_at: datetime,
    arrival_cv2: float = 1.0,
    memory: Memory | None = None,
) -> Forecast:
    """What the spec's planning windows after `made_at` will bring, its known events included.

    Parameters
    ----------
    memory : Memory or None
        Keeps what was learned for the next forecast; the answer is the same.

    Raises
    ------
    SpecError
        When a class that was observed has no objective.
    HistoryError
        When no window ended by `made_at`, or the windows reach too far beyond the history.
    """
    check_classes(spec, model, {window.request_class for window in windows})
    check_reach(windows, spec.forecast, made_at=made_at)
    expected = forecast(
        with_assumed_shapes(spec, windows, model=model),
        model=model,
        made_at=made_at,
        window_s=spec.forecast.window_s,
        horizon_windows=spec.forecast.horizon_windows,
        arrival_cv2=arrival_cv2,
        events=spec.forecast.events,
        boosted_trees=spec.forecast.boosted_trees,
        memory=memory,
    )
    _check_rates(expected)
    return expected


def _check_rates(expected: Forecast) -> None:
    """Refuse demand that no service has: arithmetic would overflow on it."""
    for window in expected.windows:
        for demand in window.demands:
            tokens = (demand.input_tokens_per_s, demand.output_tokens_per_s)
            if max(quantiles.values[-1] for quantiles in tokens) > MOST_TOKENS_PER_S:
                raise HistoryError(
                    f"more than {MOST_TOKENS_PER_S:.0e} tokens/s would be forecast for class "
                    f"{demand.request_class}: look for a wrong unit in the history or forecast"
                )


def check_classes(spec: Spec, model: str, classes: set[str]) -> None:
    """Refuse demand of a class that was promised nothing, neither by name nor as `default`."""
    known = [slo.request_class for slo in spec.slos if slo.model == model]
    for name in sorted(classes):
        if name not in known and DEFAULT_CLASS not in known:
            raise SpecError(
                f"requests of class `{name}` arrive for {model}, but slos has no entry for it"
                f"{did_you_mean(name, known)}; add one under slos"
            )


def check_forecast(spec: Spec, forecast: Forecast, *, model: str) -> None:
    """Refuse a forecast that was made elsewhere for something that the spec does not have."""
    if forecast.model != model:
        raise SpecError(
            f"the forecast is for model {forecast.model}, not for {model}: make it with "
            f"`poolwise forecast --model {model}`, or with --spec"
        )
    _check_rates(forecast)
    classes = {demand.request_class for window in forecast.windows for demand in window.demands}
    check_classes(spec, model, classes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proposal:
    """A plan, and what it changes where a fleet is known."""

    plan: Plan
    diff: Diff | None
    findings: tuple[GuardFinding, ...]


def propose(
    spec: Spec,
    forecast: Forecast,
    fleet: Fleet | None,
    *,
    model: str,
    now: datetime,
    explain: bool = False,
) -> Proposal:
    """A plan for a forecast; with the way there, and what guards say of it, for a known fleet."""
    check_forecast(spec, forecast, model=model)
    if fleet is None:
        made = plan(spec, forecast, None, made_at=now, explain=explain)
        made = in_cells(made, spec, forecast, None)
        return Proposal(plan=made, diff=None, findings=())
    conditions = _stateless(now, now)
    decision = decide(spec, forecast, fleet, now=now, conditions=conditions, explain=explain)
    steps = decision.diff
    if decision.plan.status is PlanStatus.INFEASIBLE:  # there is nothing to change to
        steps = replace(steps, steps=())
    return Proposal(plan=decision.plan, diff=steps, findings=decision.findings)


def plan_changed(
    change: WhatIf,
    forecast: Forecast,
    fleet: Fleet | None,
    *,
    spec: Spec,
    model: str,
    now: datetime,
    forecast_again: Callable[[Spec], Forecast] | None = None,
) -> Plan:
    """The plan of a changed spec, for so many times the requests as it asks for.

    Parameters
    ----------
    spec : Spec
        Before the change: what the forecast was made for.
    forecast_again : function from Spec to Forecast, or None
        Looks ahead as the changed spec says; None: only this forecast is there.

    Raises
    ------
    InputError
        When other windows are asked for than those of a forecast that cannot be made again.
    """
    before, after = spec.forecast, change.spec.forecast
    if (before.window_s, before.horizon_windows) != (after.window_s, after.horizon_windows):
        if forecast_again is None:
            raise InputError(
                f"--what-if {change.text}: other windows need another forecast, but only a "
                "finished one was given: give --trace instead of --forecast"
            )
        forecast = forecast_again(change.spec)
    scaled = forecast if change.same_requests else _more(forecast, change)
    check_forecast(change.spec, scaled, model=model)
    made = plan(change.spec, scaled, fleet, made_at=now)
    return in_cells(made, change.spec, scaled, fleet)


def _more(forecast: Forecast, change: WhatIf) -> Forecast:
    windows = (window.times(change.rate_ratio) for window in forecast.windows)
    if change.isl_ratio != 1 or change.osl_ratio != 1:
        ratios = {"isl_ratio": change.isl_ratio, "osl_ratio": change.osl_ratio}
        windows = (window.longer(**ratios) for window in windows)
    return replace(forecast, windows=tuple(windows))


def plan_beside(
    change: WhatIf,
    forecast: Forecast,
    fleet: Fleet | None,
    *,
    spec: Spec,
    forecast_again: Callable[[Spec], Forecast] | None = None,
) -> tuple[str, Plan | str]:
    """What was asked to change, and the plan of it as `plan_changed` makes it.

    Where it cannot be planned, why: the plan in hand is shown all the same.
    """
    try:
        made = plan_changed(
            change,
            forecast,
            fleet,
            spec=spec,
            model=forecast.model,
            now=forecast.made_at,
            forecast_again=forecast_again,
        )
    except UNPLANNABLE as error:
        return change.text, str(error)
    return change.text, made


def expected_together(
    spec: Spec,
    traces: Mapping[str, Path],
    *,
    told: Callable[[Path, ReadReport], None],
    start_at: datetime | None = None,
    at: datetime | None = None,
) -> tuple[Forecast, ...]:
    """A forecast per model from its own trace, all made at one instant.

    That is `at`, or the end of the trace that ends first.

    Parameters
    ----------
    told : function of (Path, ReadReport)
        Gets what was met in each file.

    Raises
    ------
    TraceError, SpecError
        As `trace_history` and `expected_demand`.
    """
    for model in traces:
        sole_model(spec, model)
    window_s = spec.forecast.window_s
    whole = {
        model: trace_history(path, window_s=window_s, start_at=start_at, at=at)
        for model, path in traces.items()
    }
    for model, history in whole.items():
        told(traces[model], history.report)
    made_at = at or min(history.ended_at for history in whole.values())
    for model, history in whole.items():
        if all(window.end_at > made_at for window in history.windows):
            begins = history.windows[0].start_at.isoformat()
            raise TraceError(
                f"{traces[model]}: begins at {begins}, but another model's trace ends at "
                f"{made_at.isoformat()}: models that share an inventory need traces of the same "
                "time (--start-at says when a trace in relative time begins)"
            )
    return tuple(
        expected_demand(
            spec,
            [w for w in history.windows if w.end_at <= made_at],
            model=model,
            made_at=made_at,
            arrival_cv2=history.arrival_cv2,
        )
        for model, history in whole.items()
    )


def _stateless(now: datetime, observed_at: datetime) -> GuardConditions:
    """Conditions of one question: what only a history could tell is taken as given."""
    long_ago = datetime.min.replace(tzinfo=UTC)
    return GuardConditions(now=now, observed_at=observed_at, recommended_since=long_ago)


def recommend(
    spec: Spec,
    windows: Sequence[ObservedWindow],
    fleet: Fleet,
    *,
    model: str,
    now: datetime,
) -> tuple[Decision, Forecast]:
    """Replicas per pool for the next window, from what was observed and what runs.

    Stateless: what only a history of decisions could tell (since when capacity is unneeded) is
    taken as given, the rest of the guards speak.
    """
    expected = expected_demand(spec, windows, model=model, made_at=now)
    conditions = _stateless(now, max(window.end_at for window in windows))
    return decide(spec, expected, fleet, now=now, conditions=conditions), expected
