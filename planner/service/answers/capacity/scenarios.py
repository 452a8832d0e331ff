"""Plans for the busiest window if one thing were otherwise: each a plan of its own, proven."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from planner.domain.errors import OutsideProfileError, SolverError, SpecError
from planner.domain.forecast import Demand, Forecast, ForecastWindow, Quantiles
from planner.domain.plan import Plan, PlanStatus
from planner.domain.slo import DEFAULT_CLASS, LONGEST_SLO_S, LONGEST_TOKEN_S, Slo
from planner.domain.spec import Budget, Spec
from planner.domain.workload import Shape
from planner.optimize import plan
from planner.service.documents.capacity_report import ScenarioDocument, ScenarioKind

GROWTH = (1.5, 2.0, 4.0)
LONG_PROMPT_TOKENS = 32_000
LONG_SHARE = 0.05
LONG_TTFT_STRETCH = 4.0
LONG_CLASS = "long-context"
"""The new workload: so many more requests, of such prompts, whose first token may take longer."""

NO_TIME = "left out: the report's time limit was reached (--time-limit)"
WITHOUT_LIMITS = 100
"""Times the inventory, where it is asked what a fleet beyond it would be."""


@dataclass(slots=True, kw_only=True)
class Effort:
    """How long a report may take, and what it took.

    Parameters
    ----------
    clock : callable
        Seconds that pass.
    """

    clock: Callable[[], float]
    began_s: float
    time_limit_s: float
    progress: Callable[[int, int], None] | None = None
    expected: int = 1
    plans: int = 0
    left_out: int = 0
    done: int = 0

    @property
    def spent_s(self) -> float:
        """Seconds since the beginning."""
        return self.clock() - self.began_s

    @property
    def is_over(self) -> bool:
        """Whether nothing more may be begun."""
        return self.spent_s >= self.time_limit_s

    def step(self) -> None:
        """One part of the work is done."""
        self.done += 1
        if self.progress is not None:
            self.progress(min(self.done, self.expected), self.expected)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A question: a spec and a forecast that differ in one thing from those of the report."""

    kind: ScenarioKind
    change: str
    spec: Spec
    forecast: Forecast
    rate_ratio: float = 1.0


def busiest(forecast: Forecast, level: float) -> int:
    """The window with most requests/s at a quantile."""
    rates = [window.request_rate_rps(level) for window in forecast.windows]
    return rates.index(max(rates))


def alone(forecast: Forecast, window: int) -> Forecast:
    """The forecast of one window only."""
    return replace(forecast, windows=(forecast.windows[window],))


def times(forecast: Forecast, ratio: float) -> Forecast:
    """So many times the requests, of the same lengths."""
    return replace(forecast, windows=tuple(w.times(ratio) for w in forecast.windows))


def ask(case: Case, effort: Effort, base: Plan | None = None) -> ScenarioDocument:
    """Plan a case and compare it with the plan of the busiest window as it is."""
    if effort.is_over:
        effort.left_out += 1
        effort.step()
        return _unplanned(case, NO_TIME)
    made = planned(case, effort)
    effort.step()
    return _unplanned(case, made) if isinstance(made, str) else scenario(case, made, base)


def planned(case: Case, effort: Effort) -> Plan | str:
    """The plan of a case, or why there is none."""
    effort.plans += 1
    try:
        return plan(case.spec, case.forecast, None, made_at=case.forecast.made_at)
    except (OutsideProfileError, SolverError, SpecError) as error:
        return str(error)


def ask_beyond(case: Case, effort: Effort, base: Plan | None) -> ScenarioDocument:
    """As `ask`; where no fleet within the limits does, what it would take without them."""
    found = ask(case, effort, base)
    if found.status is not PlanStatus.INFEASIBLE or effort.is_over:
        return found
    wider = planned(replace(case, spec=without_limits(case.spec)), effort)
    if isinstance(wider, str) or wider.status is PlanStatus.INFEASIBLE:
        return found
    beyond = scenario(case, wider, base)
    return beyond.model_copy(
        update={
            "status": PlanStatus.INFEASIBLE,
            "reason": found.reason,
            "beyond_inventory": True,
        }
    )


def without_limits(spec: Spec) -> Spec:
    """The spec with far more accelerators than it has, and no budget."""
    many = tuple(
        replace(a, inventory=max(a.inventory, a.per_node) * WITHOUT_LIMITS)
        for a in spec.accelerators
    )
    bounds = tuple(replace(b, max_replicas=None) for b in spec.pools)
    return replace(spec, accelerators=many, pools=bounds, budget=Budget())


def scenario(case: Case, made: Plan, base: Plan | None) -> ScenarioDocument:
    """What a plan of one window says, beside the plan as it is."""
    window = made.windows[0]
    held = made.status is not PlanStatus.INFEASIBLE
    usd = made.usd_per_hour if held else None
    compared = held and base is not None and base.status is not PlanStatus.INFEASIBLE
    more = made.usd_per_hour - base.usd_per_hour if base is not None and compared else None
    share = more / base.usd_per_hour if more is not None and base and base.usd_per_hour else None
    accelerators: Counter[str] = Counter()
    for pool in window.pools:
        accelerators[pool.shape.accelerator] += pool.replicas * pool.shape.accelerators
    return ScenarioDocument(
        kind=case.kind,
        change=case.change,
        status=made.status,
        reason="" if held else (made.relaxations or ("no fleet keeps the objectives",))[0],
        usd_per_hour=usd,
        more_usd_per_hour=more,
        more_ratio=share,
        accelerators=dict(sorted(accelerators.items())) if held else {},
        fleet=" + ".join(f"{p.replicas} x {p.shape.label}" for p in window.pools) if held else "",
        attainment_ratio=window.predicted.attainment_ratio,
        rate_ratio=case.rate_ratio,
    )


def _unplanned(case: Case, reason: str) -> ScenarioDocument:
    return ScenarioDocument(
        kind=case.kind,
        change=case.change,
        status=None,
        reason=reason,
        usd_per_hour=None,
        more_usd_per_hour=None,
        more_ratio=None,
        accelerators={},
        fleet="",
        attainment_ratio=None,
        rate_ratio=case.rate_ratio,
    )


def sensitivity_cases(spec: Spec, peak: Forecast, *, quick: bool) -> Iterator[Case]:
    """Objectives, prices and profiles, each a little better and worse than they are."""
    model = peak.model
    for name, ratio in (
        ("ttft_s", 0.7), ("ttft_s", 1.5), ("tpot_s", 0.7), ("tpot_s", 1.5),
    ):  # fmt: skip
        word = {"ttft_s": "time to first token", "tpot_s": "time per output token"}[name]
        yield Case(
            kind="slo",
            change=f"promised {word} {_by(ratio, 'longer', 'shorter')}",
            spec=_promising(spec, model, name, ratio),
            forecast=peak,
        )
    for error in (0.1, 0.25):
        yield Case(
            kind="profile",
            change=f"replicas {error:.0%} slower than profiled",
            spec=replace(
                spec,
                planning=replace(spec.planning, profile_error_ratio=error, own_profile_error=False),
            ),
            forecast=peak,
        )
    offered = {bounds.shape.accelerator for bounds in spec.pools if bounds.shape.model == model}
    for ratio in (1.25,) if quick else (0.75, 1.25):
        for name in sorted(offered):
            yield Case(
                kind="price",
                change=f"price of {name} {_by(ratio, 'higher', 'lower')}",
                spec=_priced(spec, name, ratio),
                forecast=peak,
            )


def _by(ratio: float, more: str, less: str) -> str:
    """Write a factor as people do: `30% shorter`."""
    return f"{abs(ratio - 1):.0%} {more if ratio > 1 else less}"


def _promising(spec: Spec, model: str, name: str, ratio: float) -> Spec:
    longest = LONGEST_SLO_S if name == "ttft_s" else LONGEST_TOKEN_S

    def changed(slo: Slo) -> Slo:
        if name == "ttft_s":
            return replace(slo, ttft_s=min(slo.ttft_s * ratio, longest))
        return replace(slo, tpot_s=min(slo.tpot_s * ratio, longest))

    slos = tuple(changed(slo) if slo.model == model else slo for slo in spec.slos)
    return replace(spec, slos=slos)


def _priced(spec: Spec, name: str, ratio: float) -> Spec:
    return replace(
        spec,
        accelerators=tuple(
            replace(
                a,
                offers=tuple(
                    replace(o, usd_per_gpu_hour=o.usd_per_gpu_hour * ratio) for o in a.offers
                ),
            )
            if a.name == name
            else a
            for a in spec.accelerators
        ),
    )


def growth_cases(spec: Spec, peak: Forecast) -> Iterator[Case]:
    """More of the same requests."""
    for ratio in GROWTH:
        yield Case(
            kind="growth",
            change=f"{ratio:g} times the requests",
            spec=spec,
            forecast=times(peak, ratio),
            rate_ratio=ratio,
        )


def long_context_case(spec: Spec, peak: Forecast, *, level: float) -> Case | None:
    """The same requests and, beside them, a few with very long prompts; None: nothing arrives."""
    window = peak.windows[0]
    rate = window.request_rate_rps(level)
    promise = strictest_promise(spec, peak.model)
    if rate <= 0 or promise is None:
        return None
    prompt = _long_prompt(spec, peak.model)
    slo = replace(
        promise,
        request_class=LONG_CLASS,
        ttft_s=min(promise.ttft_s * LONG_TTFT_STRETCH, LONGEST_SLO_S),
    )
    osl = max(d.shape.osl_mean for d in window.demands)
    more = _long_demand(window, prompt=prompt, osl=osl)
    return Case(
        kind="workload",
        change=f"{LONG_SHARE:.0%} more requests, with prompts of {prompt:,} tokens whose first "
        f"token may take {slo.ttft_s:g} s",
        spec=replace(spec, slos=(*spec.slos, slo)),
        forecast=replace(peak, windows=(replace(window, demands=(*window.demands, more)),)),
        rate_ratio=1 + LONG_SHARE,
    )


def strictest_promise(spec: Spec, model: str) -> Slo | None:
    """The promise to `default`, or that with the shortest time to first token."""
    slos = [slo for slo in spec.slos if slo.model == model]
    default = spec.slo_of(model, DEFAULT_CLASS)
    return default or min(slos, key=lambda slo: slo.ttft_s, default=None)


def _long_prompt(spec: Spec, model: str) -> int:
    """`LONG_PROMPT_TOKENS`, or three quarters of what the engines take, tokens."""
    most = [p.limits.max_model_len for p in spec.profiles if p.model == model]
    return min(LONG_PROMPT_TOKENS, math.floor(0.75 * min(most, default=LONG_PROMPT_TOKENS)))


def _long_demand(window: ForecastWindow, *, prompt: int, osl: float) -> Demand:
    quantiles = [d.request_rate_rps for d in window.demands]
    levels = quantiles[0].levels
    rate = Quantiles(
        levels=levels,
        values=tuple(LONG_SHARE * sum(q.at(level) for q in quantiles) for level in levels),
    )
    shape = Shape(
        input_tokens=np.array([float(prompt)]),
        output_tokens=np.array([osl]),
        cached_tokens=np.zeros(1),
        weight=np.ones(1),
    )
    return Demand(
        request_class=LONG_CLASS,
        request_rate_rps=rate,
        input_tokens_per_s=rate.times(float(prompt)),
        output_tokens_per_s=rate.times(osl),
        shape=shape,
    )
