"""TaiChi's question: aggregated or disaggregated, by how tight TTFT and TPOT are.

Their answer: aggregated replicas win at tight TTFT and loose TPOT, disaggregated ones at tight TPOT
and loose TTFT. Here `planner.optimize.plan` is asked three times for each pair of objectives: with
aggregated pools only, with prefill and decode pools only, and with all of them; every fleet is
proven in the twin. All replicas are alike (Llama-2-70B on 8 H100, times measured by Splitwise), the
load is the busiest five minutes of Azure's conversations, four times as many (`bench_sizing`).

References
----------
Wang et al., *Prefill-Decode Aggregation or Disaggregation? Unifying Both for Goodput-Optimized LLM
Serving*, arXiv 2508.01989 (2025), abstract and section 3.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.bench_sizing import (
    NOW,
    SLO,
    TP,
    busiest,
    fleet_text,
    known,
    read_profiles,
    spec_of,
)
from planner.domain.fleet import Role
from planner.domain.forecast import Forecast
from planner.domain.plan import Plan, PlanStatus
from planner.domain.profile import Profile
from planner.optimize import plan

ACCELERATOR = "h100-80gb"
TRACE = "AzureLLMInferenceTrace_conv.csv"
ATTAINMENT_RATIO = 0.9
TTFT_S = (0.5, 1.0, 2.0)
TPOT_S = (0.04, 0.06, 0.08, 0.2)
WAYS = {
    "aggregated": (Role.AGGREGATED,),
    "disaggregated": (Role.PREFILL, Role.DECODE),
    "plan": tuple(Role),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, whatever the objectives."""

    profile: Profile
    forecast: Forecast

    def plan(self, way: str, *, ttft_s: float, tpot_s: float) -> Plan:
        """The cheapest fleet of the pools of a way that keeps these objectives, seconds."""
        slo = replace(SLO, ttft_s=ttft_s, tpot_s=tpot_s, attainment_ratio=ATTAINMENT_RATIO)
        spec = spec_of([self.profile], WAYS[way], [ACCELERATOR], slo=slo)
        return plan(spec, self.forecast, None, made_at=NOW)


def read_question(data: Path) -> Question:
    """Profile and load below `data`."""
    profile = next(p for p in read_profiles(data) if p.accelerator == ACCELERATOR)
    return Question(profile=profile, forecast=known(busiest(data / "traces" / TRACE)))


def gpus(made: Plan) -> int | None:
    """Accelerators of the plan; None where no fleet keeps the objectives."""
    if made.status is PlanStatus.INFEASIBLE:
        return None
    return TP * sum(pool.replicas for pool in made.windows[0].pools)


def table(data: Path) -> Iterator[str]:
    """Lines for people: per pair of objectives the best of both ways, and the plan."""
    question = read_question(data)
    yield "| TTFT s | TPOT ms | aggregated | disaggregated | the plan | USD/h |"
    yield "|---|---|---|---|---|---|"
    for ttft_s in TTFT_S:
        for tpot_s in TPOT_S:
            made = {way: question.plan(way, ttft_s=ttft_s, tpot_s=tpot_s) for way in WAYS}
            cells = [f"{ttft_s:g}", f"{1e3 * tpot_s:.0f}"]
            cells += [_cell(made["aggregated"]), _cell(made["disaggregated"])]
            cells += [_cell(made["plan"]), f"{made['plan'].usd_per_hour:,.0f}"]
            yield f"| {' | '.join(cells)} |"


def _cell(made: Plan) -> str:
    count = gpus(made)
    return "none" if count is None else f"{count} GPUs: {fleet_text(made)}"
