"""Outcomes of demo runs, computed: requests queue at workers of known speed, nothing is random
but the arrivals."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from forecaster.windows import observe_windows, shape_of
from planner.domain.fleet import Fleet, Pool, ReplicaShape, Role, version_of
from planner.domain.forecast import Demand, Forecast, ForecastWindow, Quantiles
from planner.domain.hardware import PurchaseOption
from planner.domain.plan import (
    BindingRow,
    Bottleneck,
    CostTerm,
    Plan,
    PlanInputs,
    PlannedPool,
    PlanStatus,
    PlanWindow,
    Prediction,
    RejectedAlternative,
    SolverReport,
)
from planner.domain.profile import Profile
from planner.domain.rollout import (
    Approval,
    ApprovalState,
    Diff,
    GuardFinding,
    Step,
    StepKind,
    Verdict,
)
from planner.domain.slo import Slo
from planner.domain.workload import Workload
from planner.rollout import after
from planner.service.demo.outcome import MeasuredWindow, Outcome, RolledOut, Throughput
from planner.service.demo.traffic import DemoTraffic
from planner.service.demo.verdict import judge
from serving.traffic.load import Replay, Timing
from tests.fakes.profiles import linear_profile

START_AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
BEGAN_AT_S = 5_000.0
WINDOW_S = 60.0
MODEL = "tiny"
SLO = Slo(model=MODEL, ttft_s=1.5, tpot_s=0.06, attainment_ratio=0.9)
ACCELERATOR = "cpu-slot"
PREFILL_TOKEN_S = 0.0009
STEP_S = 0.024


def shape(role: Role) -> ReplicaShape:
    return ReplicaShape(role=role, model=MODEL, accelerator=ACCELERATOR)


def fleet(prefill: int, decode: int, aggregated: int = 0) -> Fleet:
    counts = ((Role.PREFILL, prefill), (Role.DECODE, decode), (Role.AGGREGATED, aggregated))
    pools = tuple(Pool(shape=shape(r), ready=n) for r, n in counts if n)
    return Fleet(pools=pools, read_at=START_AT, version=version_of(pools))


def workload(*, rate_rps: float, duration_s: float, seed: int = 0) -> Workload:
    rng = np.random.default_rng(seed)
    count = round(rate_rps * duration_s)
    return Workload(
        start_at=START_AT,
        arrival_offset_s=np.sort(rng.uniform(0, duration_s, count)),
        input_tokens=np.clip(rng.lognormal(5.6, 0.8, count), 8, 1024).astype(np.int64),
        output_tokens=np.clip(rng.lognormal(3.4, 0.7, count), 1, 192).astype(np.int64),
        cached_tokens=np.zeros(count, dtype=np.int64),
        request_class=np.full(count, "default"),
        duration_s=duration_s,
    )


def replayed(
    requests: Workload, *, began_at_s: float, prefill: int = 1, errors: Sequence[int] = ()
) -> Replay:
    """Serve prompts first come, first served on `prefill` workers; answers at a steady step.

    Requests whose index is in `errors` break off after their first token.
    """
    free_s = [0.0] * prefill
    timings = []
    for i, offset_s in enumerate(requests.arrival_offset_s.tolist()):
        worker = free_s.index(min(free_s))
        input_tokens = int(requests.input_tokens[i])
        free_s[worker] = max(free_s[worker], offset_s) + PREFILL_TOKEN_S * input_tokens
        first_s = began_at_s + free_s[worker] + 0.04
        count = int(requests.output_tokens[i])
        step_s = STEP_S * (1 + 0.4 * (i % 7) / 7)
        failed = i in errors
        timings.append(
            Timing(
                sent_at_s=began_at_s + offset_s,
                token_at_s=tuple(first_s + step_s * n for n in range(1 if failed else count)),
                tokens=tuple(range(1, 2 if failed else count + 1)),
                input_tokens=input_tokens,
                error="the engine closed the <b>connection</b>" if failed else "",
            )
        )
    return Replay(workload=requests, timings=tuple(timings), began_at_s=began_at_s, late_s=0.004)


def measured(replay: Replay, ran: Fleet) -> MeasuredWindow:
    tokens = int(replay.workload.input_tokens.sum())
    answers = int(replay.workload.output_tokens.sum())
    requests = len(replay.timings)
    return MeasuredWindow(
        replay=replay,
        fleet=ran,
        latency=replay.summary(SLO),
        throughput=Throughput(
            prefill_tokens_per_s=tokens / WINDOW_S,
            decode_tokens_per_s=answers / WINDOW_S,
            computed_tokens=tokens,
            cached_tokens=0,
            transferred_tokens=tokens,
            decode_computed_tokens=0,
            transfers=requests,
            transfer_bytes=tokens * 4096,
        ),
    )


def cpu_profile() -> Profile:
    return linear_profile(
        model=MODEL,
        accelerator=ACCELERATOR,
        prefill_base_s=0.03,
        prefill_token_s=PREFILL_TOKEN_S,
        prefill_cached_token_s=5e-5,
        decode_base_s=0.012,
        decode_sequence_s=0.0016,
        decode_context_token_s=6e-7,
        max_num_seqs=16,
        max_prompt_tokens=1024,
        max_batch=16,
        max_context_tokens=1280,
        max_model_len=2048,
        kv_capacity_tokens=32_768,
        first_token_s=0.008,
        start_cold_s=24.0,
        start_warm_s=24.0,
    )


def made_forecast(seen: Workload, *, windows: int = 3) -> Forecast:
    rate = seen.request_rate_rps
    demands: tuple[Demand, ...] = ()
    if len(seen):
        isl, osl = float(seen.input_tokens.mean()), float(seen.output_tokens.mean())
        demands = (
            Demand(
                request_rate_rps=_around(rate),
                input_tokens_per_s=_around(rate * isl),
                output_tokens_per_s=_around(rate * osl),
                shape=shape_of(seen),
            ),
        )
    return Forecast(
        forecast_id="forecast-1",
        model=MODEL,
        made_at=START_AT + timedelta(seconds=WINDOW_S),
        windows=tuple(
            ForecastWindow(
                start_at=START_AT + timedelta(seconds=WINDOW_S * (i + 1)),
                window_s=WINDOW_S,
                demands=demands,
            )
            for i in range(windows)
        ),
        method="last window, conformal quantiles",
    )


def _around(value: float) -> Quantiles:
    return Quantiles(
        levels=(0.1, 0.5, 0.8, 0.9),
        values=(0.78 * value, value, 1.15 * value, 1.3 * value),
    )


def prediction(*, source: str = "twin") -> Prediction:
    return Prediction(
        attainment_ratio=0.962,
        attainment_low_ratio=0.934,
        attainment_high_ratio=0.981,
        ttft_p50_s=0.39,
        ttft_p95_s=1.21,
        tpot_p95_s=0.034,
        itl_p95_s=0.041,
        source=source,
    )


def made_plan(*, prefill: int = 2, decode: int = 1) -> Plan:
    pools = tuple(
        PlannedPool(
            shape=shape(role),
            purchase_option=PurchaseOption.ON_DEMAND,
            replicas=count,
            utilization_ratio=used,
        )
        for role, count, used in ((Role.PREFILL, prefill, 0.71), (Role.DECODE, decode, 0.42))
    )
    windows = tuple(
        PlanWindow(
            start_at=START_AT + timedelta(seconds=WINDOW_S * (i + 1)),
            window_s=WINDOW_S,
            request_rate_rps=2.64,
            pools=pools,
            predicted=prediction(),
            bottleneck=Bottleneck.PREFILL,
            usd_per_hour=0.02 * (prefill + decode),
        )
        for i in range(3)
    )
    return Plan(
        plan_id="plan-7f3a19c2",
        model=MODEL,
        made_at=START_AT,
        status=PlanStatus.OPTIMAL,
        usd_per_hour=0.02 * (prefill + decode),
        windows=windows,
        objective=(CostTerm(name="replica_hours", usd=0.003),),
        binding=(
            BindingRow(
                row="keep_inventory[cpu-slot,0]",
                equation="sum_p accelerators[p] * replicas[p,t] <= inventory",
                sentence="all 3 slots of this machine are in use",
            ),
        ),
        rejected=(
            RejectedAlternative(
                name="1P1D",
                reason="prefill cannot keep 90% at 2.64 requests/s",
                usd_per_hour=0.04,
            ),
            RejectedAlternative(name="1P3D", reason="4 slots, 3 there", usd_per_hour=None),
        ),
        relaxations=(),
        solver=SolverReport(
            name="MathOpt/GSCIP 9.14",
            gap_ratio=0.0,
            wall_s=0.041,
            seed=0,
            time_limit_s=10.0,
            replayable=True,
        ),
        inputs=PlanInputs(
            spec_id="spec-1", forecast_id="forecast-1", profile_ids=("linear",), fleet_version="v1"
        ),
        estimated=False,
    )


def infeasible_plan() -> Plan:
    return replace(
        made_plan(),
        status=PlanStatus.INFEASIBLE,
        usd_per_hour=0.0,
        windows=(),
        binding=(),
        rejected=(),
        relaxations=("allow 5 cpu-slot instead of 3", "promise a TTFT of 4.2 s"),
    )


def start_steps() -> tuple[Step, ...]:
    kinds = ((StepKind.START, 24.0), (StepKind.ROUTE, 0.2))
    return tuple(
        Step(
            index=i,
            kind=kind,
            shape=shape(Role.PREFILL),
            purchase_option=PurchaseOption.ON_DEMAND,
            expected_s=expected_s,
            expected_usd=0.0,
            reason="the plan has 2 replicas here, the fleet 1",
        )
        for i, (kind, expected_s) in enumerate(kinds)
    )


def judged(run: Outcome) -> Outcome:
    """The run with the demo's own verdict on it."""
    verdict = judge(
        run.before,
        run.after,
        diff=run.diff,
        planned=run.planned,
        hindcast=run.hindcast,
        slo=run.slo,
        quota_is_enforced=True,
    )
    return replace(run, verdict=verdict)


def improved() -> Outcome:
    """A run in which a second prefill worker ends a growing queue."""
    trace = workload(rate_rps=3.2, duration_s=240.0)
    first, last = fleet(1, 1), fleet(2, 1)
    warm = replayed(trace.between(0, WINDOW_S), began_at_s=BEGAN_AT_S + 70.0)
    during = replayed(trace.between(WINDOW_S, 88.0), began_at_s=BEGAN_AT_S + 150.0, errors=(3,))
    now = replayed(trace.between(88.0, 88.0 + WINDOW_S), began_at_s=BEGAN_AT_S + 190.0, prefill=2)
    steps = start_steps()
    expected = made_forecast(warm.workload)
    return judged(
        Outcome(
            began_at=START_AT,
            began_at_s=BEGAN_AT_S,
            took_s=262.0,
            quota="each worker is held to 0.5 cores by the kernel: one slot",
            traffic=DemoTraffic(
                source="built-in, synthesized from published statistics: Mooncake (FAST 2025)",
                workload=trace,
                length_ratio=0.0833,
                rate_ratio=0.41,
                notes=("lengths x 0.0833; 9.8% of requests cut at the limits",),
            ),
            profile=cpu_profile(),
            slo=SLO,
            window_s=WINDOW_S,
            before=measured(warm, first),
            history=observe_windows(warm.workload, WINDOW_S / 6),
            forecast=expected,
            plan=made_plan(),
            diff=Diff(plan_id="plan-7f3a19c2", from_fleet=first, steps=steps),
            findings=(
                GuardFinding(guard="fresh_observation", verdict=Verdict.ALLOW, reason="0 s old"),
                GuardFinding(guard="budget", verdict=Verdict.ALLOW, reason="no budget is set"),
            ),
            approval=Approval(
                plan_id="plan-7f3a19c2",
                state=ApprovalState.APPLIED,
                fleet_version=first.version,
                changed_at=START_AT,
                changed_by="poolwise demo",
                reason="asked and answered",
            ),
            applied=(
                RolledOut(
                    text="start prefill:cpu-slot:tp1", kind="start", began_s=151.0, took_s=25.6
                ),
                RolledOut(
                    text="route prefill:cpu-slot:tp1", kind="route", began_s=176.6, took_s=0.3
                ),
            ),
            during=during,
            after=measured(now, replace(after(first, steps, at=START_AT), version=last.version)),
            hindcast=prediction(),
            verdict=(),
        )
    )


def unchanged() -> Outcome:
    """A run whose plan is the fleet that was there: nothing is applied."""
    run = improved()
    calm = workload(rate_rps=0.4, duration_s=240.0)
    warm = replayed(calm.between(0, WINDOW_S), began_at_s=BEGAN_AT_S + 70.0)
    now = replayed(calm.between(WINDOW_S, 2 * WINDOW_S), began_at_s=BEGAN_AT_S + 140.0)
    return judged(
        replace(
            run,
            before=measured(warm, fleet(1, 1)),
            after=measured(now, fleet(1, 1)),
            history=observe_windows(warm.workload, WINDOW_S / 6),
            forecast=made_forecast(warm.workload),
            plan=made_plan(prefill=1),
            diff=Diff(plan_id="plan-7f3a19c2", from_fleet=fleet(1, 1), steps=()),
            applied=(),
            during=None,
            approval=replace(
                run.approval, state=ApprovalState.APPROVED, reason="nothing to change"
            ),
        )
    )


def silent() -> Outcome:
    """A run without any request: nothing arrives before or after, nothing is expected."""
    nobody = workload(rate_rps=0.0, duration_s=WINDOW_S)
    run = unchanged()
    nothing = Prediction(attainment_ratio=None, source="twin")
    plan = run.plan
    return judged(
        replace(
            run,
            traffic=replace(run.traffic, workload=nobody, notes=()),
            before=measured(replayed(nobody, began_at_s=BEGAN_AT_S + 70.0), fleet(1, 1)),
            after=measured(replayed(nobody, began_at_s=BEGAN_AT_S + 140.0), fleet(1, 1)),
            history=(),
            forecast=made_forecast(nobody, windows=1),
            plan=replace(
                plan,
                windows=tuple(replace(w, predicted=nothing) for w in plan.windows),
                rejected=(),
            ),
            findings=(),
            hindcast=nothing,
        )
    )


def single() -> Outcome:
    """A run with one request of one token in each window."""
    one = Workload(
        start_at=START_AT,
        arrival_offset_s=np.array([1.0]),
        input_tokens=np.array([1]),
        output_tokens=np.array([1]),
        cached_tokens=np.array([0]),
        request_class=np.array(["default"]),
        duration_s=WINDOW_S,
    )
    run = unchanged()
    return judged(
        replace(
            run,
            traffic=replace(run.traffic, workload=one),
            before=measured(replayed(one, began_at_s=BEGAN_AT_S + 70.0), fleet(1, 1)),
            after=measured(replayed(one, began_at_s=BEGAN_AT_S + 140.0), fleet(1, 1)),
            history=observe_windows(one, WINDOW_S / 6),
            forecast=made_forecast(one),
        )
    )


def infeasible() -> Outcome:
    """A run that found no fleet within the limits."""
    run = unchanged()
    return judged(
        replace(
            run,
            plan=infeasible_plan(),
            approval=replace(
                run.approval, state=ApprovalState.REJECTED, reason="a guard refused it"
            ),
            findings=(
                GuardFinding(guard="feasible", verdict=Verdict.REFUSE, reason="no fleet fits"),
            ),
        )
    )


def rejected() -> Outcome:
    """A run whose steps were not approved."""
    run = improved()
    return judged(
        replace(
            run,
            applied=(),
            during=None,
            after=replace(run.after, fleet=fleet(1, 1)),
            approval=replace(run.approval, state=ApprovalState.REJECTED, reason="answered no"),
        )
    )


def all_failed() -> Outcome:
    """A run in which no request was answered."""
    run = improved()
    trace = workload(rate_rps=1.0, duration_s=WINDOW_S)
    everyone = range(len(trace))
    warm = replayed(trace, began_at_s=BEGAN_AT_S + 70.0, errors=everyone)
    now = replayed(trace, began_at_s=BEGAN_AT_S + 190.0, errors=everyone)
    return judged(
        replace(
            run,
            before=measured(warm, fleet(1, 1)),
            after=measured(now, fleet(2, 1)),
        )
    )
