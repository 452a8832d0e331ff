"""The whole report: forecast, plan, replay, ask what if, and say what is doubtful."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from planner.domain.errors import InputError
from planner.domain.forecast import Forecast
from planner.domain.plan import Plan, PlanStatus
from planner.domain.spec import Spec
from planner.optimize import ParetoPoint, frontier
from planner.optimize.pareto import ATTAINMENTS, TTFT_RATIOS
from planner.service.answers.capacity.attained import attainment_document
from planner.service.answers.capacity.doubts import (
    assumptions,
    profile_documents,
    risks,
    used_profiles,
)
from planner.service.answers.capacity.fleet import (
    disaggregation_document,
    expected_documents,
    recommended_document,
)
from planner.service.answers.capacity.inventory import carried, inventory_document
from planner.service.answers.capacity.purchase import purchase_cases, split_documents
from planner.service.answers.capacity.scenarios import (
    Case,
    Effort,
    alone,
    ask,
    ask_beyond,
    busiest,
    growth_cases,
    long_context_case,
    planned,
    scenario,
    sensitivity_cases,
)
from planner.service.answers.capacity.seen import Seen, planning_spec
from planner.service.answers.capacity.workload import workload_document
from planner.service.answers.planning import expected_demand, propose
from planner.service.documents.capacity_report import (
    CapacityReport,
    EffortDocument,
    ParetoPointDocument,
    ScenarioDocument,
)
from planner.service.documents.plan import plan_document

TIME_LIMIT_S, QUICK_TIME_LIMIT_S = 1800.0, 300.0
LONGEST_S = 86_400.0
_QUICK_RATIOS = (0.7, 1.0, 1.6)
_HALVINGS, _QUICK_HALVINGS = 5, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """What is asked for, and how long it may take.

    Parameters
    ----------
    now : datetime
        From when growth is counted.
    clock : callable
        Seconds that pass.
    growth_per_month_ratio : float or None
        0.1 is 10 % a month; None: nobody knows, examples are shown.
    time_limit_s : float or None
        Nothing more is begun after so long; what was begun is ended. None: as usual.
    """

    now: datetime
    clock: Callable[[], float]
    quick: bool = False
    growth_per_month_ratio: float | None = None
    time_limit_s: float | None = None
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        growth, limit = self.growth_per_month_ratio, self.time_limit_s
        if growth is not None and not -0.9 <= growth <= 10:
            raise InputError(
                f"a growth of {growth:g} a month is none: give -0.9 to 10 (0.1 is 10 %)"
            )
        if limit is not None and not 0 < limit <= LONGEST_S:
            raise InputError(f"a time limit of {limit:g} s is none: give up to {LONGEST_S:g} s")

    @property
    def limit_s(self) -> float:
        """How long it may take, seconds."""
        if self.time_limit_s is not None:
            return self.time_limit_s
        return QUICK_TIME_LIMIT_S if self.quick else TIME_LIMIT_S


def capacity_report(
    spec: Spec, seen: Seen, *, model: str, settings: ReportSettings
) -> CapacityReport:
    """How many accelerators for what was seen, at what cost, why, and how sure.

    The forecast and its plan come first and are always made; then, until the time is up, the
    twin's futures, growth and inventory, ways to buy, sensitivity and the frontier.

    Raises
    ------
    HistoryError, SpecError, OutsideProfileError, SolverError
        As `expected_demand` and `propose`: without a forecast and a plan there is no report.
    """
    asking = _Asking(spec, seen, model=model, settings=settings)
    return asking.report()


class _Asking:
    """One report while it is made."""

    def __init__(self, spec: Spec, seen: Seen, *, model: str, settings: ReportSettings) -> None:
        self.seen, self.settings = seen, settings
        self.spec = planning_spec(spec, seen, quick=settings.quick)
        self.effort = Effort(
            clock=settings.clock,
            began_s=settings.clock(),
            time_limit_s=settings.limit_s,
            progress=settings.progress,
        )
        self.forecast: Forecast = expected_demand(
            self.spec,
            seen.windows,
            model=model,
            made_at=seen.ended_at,
            arrival_cv2=seen.arrival_cv2,
        )
        level = self.spec.forecast.demand_level
        self.level = level
        self.peak = busiest(self.forecast, level)
        self.peak_forecast = alone(self.forecast, self.peak)
        self.base = Case(
            kind="base", change="as it is", spec=self.spec, forecast=self.peak_forecast
        )

    def report(self) -> CapacityReport:
        """Everything, the most important first."""
        quick, effort, spec = self.settings.quick, self.effort, self.spec
        cases = self._cases()
        effort.expected = 4 + len(cases) + len(self._promises())
        effort.step()
        made = self._plan()
        effort.step()
        split = disaggregation_document(made)
        recommended = recommended_document(
            made, self.forecast, spec, peak=self.peak, since=self.seen.start_at
        )
        attained, why = attainment_document(
            spec, made, self.forecast, peak=self.peak, quick=quick, effort=effort
        )
        base_plan, as_it_is = self._base(made)
        if made.status is PlanStatus.INFEASIBLE:
            cases = []  # a fleet that is not there has no sensitivity
        asked = [self._ask(case, base_plan) for case in cases]
        growth = [s for s in asked if s.kind in ("growth", "workload")]
        found = carried(
            self.base,
            as_it_is,
            [s for s in growth if s.kind == "growth"],
            effort,
            carries_today=made.status is not PlanStatus.INFEASIBLE,
            halvings=_QUICK_HALVINGS if quick else _HALVINGS,
        )
        pareto = [] if made.status is PlanStatus.INFEASIBLE else self._pareto()
        workload = workload_document(self.seen)
        told = EffortDocument(
            quick=quick,
            time_limit_s=effort.time_limit_s,
            wall_s=effort.spent_s,
            plans=effort.plans,
            left_out=effort.left_out,
        )
        return CapacityReport(
            deployment=spec.name,
            model=made.model,
            made_at=self.settings.now,
            workload=workload,
            forecast_method=self.forecast.method,
            demand_level=made.inputs.demand_level,
            expected=expected_documents(made, self.forecast),
            plan=plan_document(made),
            recommended=recommended,
            disaggregation=split,
            attainment=attained,
            attainment_reason=why,
            base=as_it_is,
            sensitivity=[s for s in asked if s.kind in ("slo", "price", "profile")],
            pareto=pareto,
            growth=growth,
            inventory=inventory_document(
                found,
                from_at=self.settings.now,
                asked=self.settings.growth_per_month_ratio,
            ),
            split=split_documents(made, spec),
            purchase=[s for s in asked if s.kind == "purchase"],
            risks=list(
                risks(
                    spec,
                    made,
                    self.forecast,
                    recommended=recommended,
                    disaggregation=split,
                    attained=attained,
                )
            ),
            assumptions=list(assumptions(spec, made, workload, recommended, told)),
            profiles=profile_documents(spec, made.model, used=used_profiles(spec, made)),
            effort=told,
        )

    def _plan(self) -> Plan:
        """The plan over all windows, made as `poolwise plan` makes it."""
        self.effort.plans += 1
        made_at = self.forecast.made_at
        proposal = propose(self.spec, self.forecast, None, model=self.forecast.model, now=made_at)
        return proposal.plan

    def _cases(self) -> list[Case]:
        """What is asked, the most important first."""
        spec, peak = self.spec, self.peak_forecast
        long = long_context_case(spec, peak, level=self.level)
        return [
            *growth_cases(spec, peak),
            *([] if long is None else [long]),
            *purchase_cases(spec, peak),
            *sensitivity_cases(spec, peak, quick=self.settings.quick),
        ]

    def _ask(self, case: Case, base: Plan | None) -> ScenarioDocument:
        if case.kind in ("growth", "workload"):
            return ask_beyond(case, self.effort, base)
        return ask(case, self.effort, base)

    def _base(self, made: Plan) -> tuple[Plan | None, ScenarioDocument]:
        """The plan of the busiest window alone, which the others are compared with."""
        if made.status is PlanStatus.INFEASIBLE:
            return None, ask_beyond(self.base, self.effort, None)
        if len(made.windows) == 1:
            self.effort.step()
            return made, scenario(self.base, made, made)
        if self.effort.is_over:
            return None, ask(self.base, self.effort)
        alone_plan = planned(self.base, self.effort)
        self.effort.step()
        if isinstance(alone_plan, str):
            return None, ask(self.base, self.effort)
        return alone_plan, scenario(self.base, alone_plan, alone_plan)

    def _promises(self) -> list[tuple[float, float]]:
        """Times the promised TTFT, and attainment targets: those near what is promised first."""
        own = max(s.attainment_ratio for s in self.spec.slos if s.model == self.forecast.model)
        ratios: Sequence[float] = _QUICK_RATIOS if self.settings.quick else TTFT_RATIOS
        targets = [own] if self.settings.quick else sorted({*ATTAINMENTS, own})
        grid = [(ratio, target) for ratio in ratios for target in targets]
        return sorted(grid, key=lambda p: (abs(math.log(p[0])), abs(p[1] - own)))

    def _pareto(self) -> list[ParetoPointDocument]:
        effort = self.effort
        points = frontier(
            self.spec,
            self.peak_forecast,
            None,
            made_at=self.forecast.made_at,
            promises=self._promises(),
            progress=lambda _done, _all: effort.step(),
            enough=lambda: effort.is_over,
        )
        left = len(self._promises()) - len(points)
        effort.left_out += left
        effort.plans += len(points)
        return [_pareto_point(point) for point in points]


def _pareto_point(point: ParetoPoint) -> ParetoPointDocument:
    made = point.plan
    kept = made is not None and made.status is not PlanStatus.INFEASIBLE
    reason = point.refused
    if made is not None and not kept:
        reason = "no fleet keeps it"
    return ParetoPointDocument(
        ttft_s=point.ttft_s,
        attainment_ratio=point.attainment_ratio,
        usd_per_hour=made.usd_per_hour if made is not None and kept else None,
        efficient=point.efficient,
        reason=reason,
    )
