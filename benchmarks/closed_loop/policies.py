"""Who competes, each with the settings that make its curve of attainment against hours."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.closed_loop.kept import ALL_OURS, HERE
from benchmarks.closed_loop.mocker import DynamoPlanner
from benchmarks.closed_loop.production import Tuning, production
from benchmarks.closed_loop.reactive import DecodeRate, Keda, QueueHpa
from benchmarks.closed_loop.settings import Setting
from benchmarks.closed_loop.workloads import Case, before_of, workload_of
from planner.autoscale.backtest import Figures, Foresight, LastValue, Static, schedule
from planner.simulate.policy import Policy

OURS, FORESIGHT, STATIC, DYNAMO = "Poolwise", "foresight", "static", "Dynamo's planner"

PROMISES = (
    (0.8, 0.5),
    (0.9, 0.5),
    (0.95, 0.5),
    (0.99, 0.5),
    (0.9, 0.9),
    (0.99, 0.75),
    (0.99, 0.9),
)
"""Attainment, and the quantile of demand to plan for.

A promise that is proven for the demand of one window in ten is kept better in the other nine."""
UTILIZATION = (0.9, 0.8, 0.7, 0.6)
QUEUES = ((1.0, 128.0), (3.0, 192.0))
MOST_STATIC = (14, 3)
VERIFIED_AT = (0.9, 0.95, 0.975, 0.99, 0.995)
"""The cheapest schedules and fleets that attain so much in the twin are run in both simulators."""
BACKTEST = "planner/autoscale/backtest"
REACTIVE = f"{HERE}/reactive.py"

SMOOTHED_S = (20.0, 45.0, 120.0, 300.0)
MARGIN = (
    (0.1, 0.25, 0.4, 0.55, 0.7, 0.9, 1.1, 1.4, 1.8),
    (0.0, 0.3, 0.7),
)
"""Foresight's, of prefill and of decode, in roots of the load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One policy with one choice of its settings.

    Parameters
    ----------
    family : str
        Whose curve it is a point of.
    code : tuple of str
        Files and folders of sources that its decisions depend on.
    """

    family: str
    text: str
    make: Callable[[], Policy | DynamoPlanner]
    code: tuple[str, ...] = (REACTIVE, BACKTEST)


Judge = Callable[[Candidate], Figures]
"""Runs a candidate in the twin."""


def candidates(
    setting: Setting, case: Case, *, judge: Judge, families: Sequence[str] = ()
) -> list[Candidate]:
    """All, or those of some families; of fleets and schedules those that are best in the twin."""
    made: dict[str, Callable[[], Iterator[Candidate]]] = {
        OURS: partial(_ours, setting, case),
        "last value": partial(_last_value, setting, case),
        "HeteroScale-like": partial(_decode_rate, setting, case),
        "llm-d KEDA": partial(_keda, setting, case),
        "HPA on queues": partial(_hpa, setting, case),
        DYNAMO: _dynamo,
        STATIC: partial(_static, case, judge),
        FORESIGHT: partial(_foresight, setting, case, judge),
    }
    return [c for name, of in made.items() if not families or name in families for c in of()]


def _ours(setting: Setting, case: Case) -> Iterator[Candidate]:
    for promise, level in PROMISES:
        tuning = Tuning(attainment_ratio=promise, demand_level=level)
        yield Candidate(
            family=OURS,
            text=f"promise {100 * promise:g} % at q{100 * level:g}",
            make=partial(
                production, setting, tuning, warm_s=case.warm_s, before=before_of(case.name)
            ),
            code=ALL_OURS,
        )


def _last_value(setting: Setting, case: Case) -> Iterator[Candidate]:
    for ratio in UTILIZATION:
        yield Candidate(
            family="last value",
            text=f"at {100 * ratio:g} %",
            make=partial(LastValue, pair=setting.pair, warm_s=case.warm_s, utilization_ratio=ratio),
        )


def _decode_rate(setting: Setting, case: Case) -> Iterator[Candidate]:
    for ratio in UTILIZATION:
        yield Candidate(
            family="HeteroScale-like",
            text=f"at {100 * ratio:g} %",
            make=partial(
                DecodeRate, pair=setting.pair, warm_s=case.warm_s, utilization_ratio=ratio
            ),
        )


def _keda(setting: Setting, case: Case) -> Iterator[Candidate]:
    yield Candidate(
        family="llm-d KEDA",
        text="as published",
        make=partial(Keda, pair=setting.pair, warm_s=case.warm_s),
    )


def _hpa(setting: Setting, case: Case) -> Iterator[Candidate]:
    for waiting, running in QUEUES:
        yield Candidate(
            family="HPA on queues",
            text=f"{waiting:g} waiting, {running:g} running",
            make=partial(
                QueueHpa, pair=setting.pair, warm_s=case.warm_s, waiting=waiting, running=running
            ),
        )


DYNAMO_PREDICTORS = ("constant", "arima", "kalman", "prophet")
DYNAMO_INTERVALS_S = (60, 180)
DYNAMO_FLOORS = ((2, 1), (3, 1), (4, 2), (5, 2))
"""Least replicas of prefill and decode, beside its reactions to load."""


def _dynamo() -> Iterator[Candidate]:
    """Its default, its SLA mode with every predictor, and with reactions to load as well."""
    chosen: dict[str, dict[str, str | int | float | bool]] = {
        "default": {"optimization_target": "throughput"},
        "latency": {"optimization_target": "latency"},
    }
    for prefill, decode in DYNAMO_FLOORS:
        chosen[f"hybrid, constant, 60 s, at least {prefill}P + {decode}D"] = {
            "optimization_target": "sla",
            "load_predictor": "constant",
            "throughput_adjustment_interval_seconds": 60,
            "enable_load_scaling": True,
            "prefill_min_endpoint": prefill,
            "decode_min_endpoint": decode,
        }
    for interval_s in DYNAMO_INTERVALS_S:
        for predictor in DYNAMO_PREDICTORS:
            options = {
                "optimization_target": "sla",
                "load_predictor": predictor,
                "throughput_adjustment_interval_seconds": interval_s,
            }
            chosen[f"SLA, {predictor}, {interval_s} s"] = options
            if predictor in ("constant", "kalman"):
                hybrid = options | {"enable_load_scaling": True}
                chosen[f"hybrid, {predictor}, {interval_s} s"] = hybrid
    for text, wanted in chosen.items():
        yield Candidate(
            family=DYNAMO,
            text=text,
            make=partial(DynamoPlanner, options=tuple(wanted.items())),
            code=(f"{HERE}/run_planner.py", f"{HERE}/requirements.txt"),
        )


def _static(case: Case, judge: Judge) -> Iterator[Candidate]:
    """The fleets that no other one beats in the twin."""
    every = [
        Candidate(
            family=STATIC,
            text=f"{p}P + {d}D",
            make=partial(Static, replicas=(p, d), warm_s=case.warm_s),
        )
        for p in range(1, MOST_STATIC[0] + 1)
        for d in range(1, MOST_STATIC[1] + 1)
    ]
    yield from _best(every, judge)


def _foresight(setting: Setting, case: Case, judge: Judge) -> Iterator[Candidate]:
    """The schedules that no other one beats in the twin."""
    workload = workload_of(case.name)
    plans = (
        Foresight(margin=(prefill, decode), smoothed_s=smoothed_s)
        for smoothed_s, prefill, decode in itertools.product(SMOOTHED_S, *MARGIN)
    )
    every = [
        Candidate(
            family=FORESIGHT,
            text=plan.text,
            make=partial(
                schedule,
                plan,
                setting.pair,
                workload,
                warm_s=case.warm_s,
                unannounced_s=case.unannounced_s,
            ),
            code=(BACKTEST,),
        )
        for plan in plans
    ]
    yield from _best(every, judge)


def _best(every: Sequence[Candidate], judge: Judge) -> Iterator[Candidate]:
    seen = [judge(candidate) for candidate in every]
    chosen = []
    for level in VERIFIED_AT:
        able = [i for i, f in enumerate(seen) if f.attainable_ratio >= level]
        chosen += sorted(able, key=lambda i: seen[i].accelerator_hours)[:1]
    yield from (every[i] for i in dict.fromkeys(chosen))
