"""What plans cost against simple sizing, judged by real requests in the twin.

    python -m benchmarks.bench_sizing

The busiest five minutes of three public traces (below POOLWISE_DATA) on Llama-2-70B replicas of 8
accelerators, times measured by Splitwise (A100 and H100, `profiles/splitwise-sim`). Everybody knows
rate and lengths of the five minutes beforehand; nobody knows the instants. A fleet counts with the
attainment that the twin finds for the real requests.

* plan as it comes: `planner.optimize.plan`, all roles on both accelerators.
* plan: the same for the least multiple of the requests (1, 1.05, ...) that keeps the target for
  these very requests, as Dynamo gets its headroom, so that all below are at equal attainment.
* dynamo: P = ceil(h lambda / mu_p), D = ceil(h lambda / mu_d), mean lengths, mu_p = max{B / T(B) :
  T(B) <= TTFT}, mu_d = max{B / (O itl(B)) : itl(B) <= TPOT} (NVIDIA Dynamo's SLA planner), with the
  smallest headroom h that keeps the target for these very requests: no operator could know it.
* disaggregated only, aggregated only, one accelerator (the cheaper one): with fewer choices.

None of the figures was measured on a GPU by us.
"""

import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from forecaster.readers import read_trace
from forecaster.rescale import rescale, spread_ticks
from forecaster.shapes import shape_of
from forecaster.windows import arrival_cv2_of
from planner.domain.errors import OutsideProfileError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.forecast import Demand, Forecast, ForecastWindow, Quantiles
from planner.domain.hardware import Accelerator, Offer, PurchaseOption
from planner.domain.model import Model
from planner.domain.plan import Plan, PlanStatus
from planner.domain.profile import (
    EngineLimits,
    LifecycleTimes,
    Profile,
    ProfileKind,
    Provenance,
    TransferTime,
)
from planner.domain.slo import Slo
from planner.domain.spec import ForecastSettings, PoolBounds, Spec
from planner.domain.workload import Workload
from planner.optimize import plan
from planner.simulate import ReplicaGroup, Scenario, simulate
from profiler.imports.splitwise import Table, imported_from, read_table

PERF_MODEL = "profiles/splitwise-sim/perf_model.csv"
MODEL = "llama2-70b"
TP = 8
WINDOW_S = 300.0
LONGEST_PROMPT, LONGEST_ANSWER = 8_000, 1_500
RATE_RATIO = 4.0
"""Times the requests of the trace: enough for fleets whose sizes differ."""
KV_BYTES_PER_TOKEN = 2 * 80 * 8 * 128 * 2
"""Llama-2-70B: 80 layers, 8 KV heads of 128, two bytes."""
WEIGHT_BYTES, MEMORY_BYTES = 140e9, 80e9
TRANSFER_BYTES_PER_S = 20e9
"""Of the KV cache between machines: 200 Gb/s InfiniBand, less a fifth (Splitwise, section 5)."""
USD_PER_GPU_HOUR = {"h100-80gb": 4.76, "a100-80gb": 2.21}
"""Splitwise, table 2: 38 and 17.6 USD/h a machine of 8."""
TRACES = (
    ("Azure conversation", "AzureLLMInferenceTrace_conv.csv"),
    ("Azure code", "AzureLLMInferenceTrace_code.csv"),
    ("Mooncake conversation", "mooncake_conversation_trace.jsonl"),
)
SLO = Slo(model=MODEL, ttft_s=1.5, tpot_s=0.08, attainment_ratio=0.95)
MULTIPLES = np.arange(1.0, 4.01, 0.05)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """A fleet by one method, and what became of the real requests."""

    method: str
    fleet: str
    usd_per_hour: float
    attainment_ratio: float


def measured_profile(accelerator: str, table: Table) -> Profile:
    """Medians of Splitwise's measurements as a profile."""
    own = imported_from(table, model=MODEL, accelerator=accelerator, tp=TP)
    return Profile(
        profile_id=f"splitwise-{accelerator}-tp{TP}",
        model=MODEL,
        accelerator=accelerator,
        tp=TP,
        roles=(Role.PREFILL, Role.DECODE, Role.AGGREGATED),
        prefill=own.prefill,
        decode_step=own.decode_step,
        transfer=TransferTime(base_s=0.005, bandwidth_bytes_per_s=TRANSFER_BYTES_PER_S),
        first_token_s=0.0,
        limits=EngineLimits(
            kv_capacity_tokens=int((0.9 * TP * MEMORY_BYTES - WEIGHT_BYTES) / KV_BYTES_PER_TOKEN),
            kv_bytes_per_token=float(KV_BYTES_PER_TOKEN),
            max_num_seqs=int(own.decode_step.x[-1]),
            max_num_batched_tokens=2_048,
            max_model_len=16_384,
        ),
        lifecycle=LifecycleTimes(start_cold_s=300.0, start_warm_s=120.0, flip_s=5.0, drain_s=30.0),
        provenance=Provenance(
            kind=ProfileKind.MEASURED,
            source=own.source,
            measured_at=NOW,
            machine=own.machine,
            engine=own.engine,
            points=own.points,
            error_ratio=0.0,
        ),
    )


def read_profiles(data: Path) -> list[Profile]:
    """Splitwise's measurements on both accelerators."""
    table = read_table(data / PERF_MODEL)
    return [measured_profile(name, table) for name in USD_PER_GPU_HOUR]


def spec_of(
    profiles: Sequence[Profile], roles: Sequence[Role], names: Sequence[str], *, slo: Slo = SLO
) -> Spec:
    """Pools of these roles on these accelerators, more than enough of each."""
    return Spec(
        spec_id="sizing",
        name="sizing",
        models=(
            Model(
                name=MODEL, layers=80, kv_heads=8, head_size=128, parameters=70_000_000_000,
                active_parameters=70_000_000_000, max_context_tokens=16_384,
            ),
        ),
        slos=(slo,),
        accelerators=tuple(
            Accelerator(
                name=name,
                per_node=TP,
                inventory=60 * TP,
                offers=(
                    Offer(
                        purchase_option=PurchaseOption.ON_DEMAND,
                        usd_per_gpu_hour=USD_PER_GPU_HOUR[name],
                    ),
                ),
            )
            for name in names
        ),
        profiles=tuple(p for p in profiles if p.accelerator in names),
        pools=tuple(
            PoolBounds(shape=ReplicaShape(role=role, model=MODEL, accelerator=name, tp=TP))
            for name in names
            for role in roles
        ),
        forecast=ForecastSettings(window_s=WINDOW_S, horizon_windows=1, demand_level=0.5),
    )  # fmt: skip


def busiest(path: Path) -> Workload:
    """The five minutes with the most prompt tokens, lengths cut, more requests."""
    read = read_trace(path)
    workload, tick_s = read.workload, read.report.arrival_tick_s
    if tick_s is not None:
        workload = spread_ticks(workload, tick_s=tick_s, rng=np.random.default_rng(0))
    workload = replace(workload, prefix=None, cached_tokens=np.zeros_like(workload.cached_tokens))
    starts = np.arange(0.0, workload.duration_s - WINDOW_S, 30.0)
    tokens = [float(workload.between(s, s + WINDOW_S).input_tokens.sum()) for s in starts]
    begin = float(starts[int(np.argmax(tokens))])
    few = rescale(
        workload.between(begin, begin + WINDOW_S),
        length_ratio=1.0,
        rate_ratio=1.0,
        max_input_tokens=LONGEST_PROMPT,
        max_output_tokens=LONGEST_ANSWER,
    )
    return _several(few, int(RATE_RATIO))


def _several(workload: Workload, times: int) -> Workload:
    """So many copies, each moved by a random part of the interval: bursts do not add up."""
    rng = np.random.default_rng(1)
    span = workload.duration_s
    moved = [(workload.arrival_offset_s + rng.uniform(0, span)) % span for _ in range(times)]
    order = np.argsort(np.concatenate(moved), kind="stable")

    def again(column: np.ndarray) -> np.ndarray:
        return np.tile(column, times)[order]

    return replace(
        workload,
        arrival_offset_s=np.concatenate(moved)[order],
        input_tokens=again(workload.input_tokens),
        output_tokens=again(workload.output_tokens),
        cached_tokens=again(workload.cached_tokens),
        request_class=again(workload.request_class),
    )


def known(workload: Workload) -> Forecast:
    """Rate, lengths and burstiness of the requests as a forecast without doubt."""

    def sure(value: float) -> Quantiles:
        return Quantiles(levels=(0.5,), values=(value,))

    rate = workload.request_rate_rps
    demand = Demand(
        request_rate_rps=sure(rate),
        input_tokens_per_s=sure(rate * float(workload.input_tokens.mean())),
        output_tokens_per_s=sure(rate * float(workload.output_tokens.mean())),
        shape=shape_of(workload),
        arrival_cv2=arrival_cv2_of(workload),
    )
    window = ForecastWindow(start_at=NOW, window_s=WINDOW_S, demands=(demand,))
    return Forecast(
        forecast_id="known", model=MODEL, made_at=NOW, windows=(window,), method="known"
    )


def attained(groups: Sequence[ReplicaGroup], workload: Workload) -> float:
    """Share of the real requests that meet their objectives on these replicas."""
    result = simulate(Scenario(groups=tuple(groups), workload=workload))
    return float(result.met([SLO]).mean())


def by_plan(method: str, spec: Spec, workload: Workload) -> Sized | None:
    """The optimizer's fleet, for as many more requests as keep the target for these."""
    for multiple in MULTIPLES:
        found = as_it_comes(f"{method} x{multiple:.2f}", spec, workload, multiple=multiple)
        if found is not None and found.attainment_ratio >= SLO.attainment_ratio:
            return found
    return None


def as_it_comes(
    method: str, spec: Spec, workload: Workload, *, multiple: float = 1.0
) -> Sized | None:
    """The optimizer's fleet; None where it finds none that keeps the promise."""
    expected = known(workload)
    more = tuple(window.times(multiple) for window in expected.windows)
    made = plan(spec, replace(expected, windows=more), None, made_at=NOW)
    if made.status is PlanStatus.INFEASIBLE:
        return None
    groups = [
        ReplicaGroup(profile=profile, role=pool.shape.role, replicas=pool.replicas)
        for pool in made.windows[0].pools
        if (profile := spec.profile_of(pool.shape)) is not None
    ]
    return Sized(
        method=method,
        fleet=fleet_text(made),
        usd_per_hour=made.usd_per_hour,
        attainment_ratio=attained(groups, workload),
    )


def fleet_text(made: Plan) -> str:
    """Replicas of the first window, as in `8 prefill a100 + 5 decode a100`."""
    pools = made.windows[0].pools
    return " + ".join(
        f"{p.replicas} {p.shape.role} {p.shape.accelerator.partition('-')[0]}" for p in pools
    )


def by_dynamo(profile: Profile, workload: Workload) -> Sized | None:
    """Their formula with the smallest headroom that keeps the target for these requests."""
    isl, osl = float(workload.input_tokens.mean()), float(workload.output_tokens.mean())
    prompt_s = float(profile.prefill.at(isl, 0.0))
    batches = np.arange(1, profile.limits.max_num_seqs + 1, dtype=np.float64)
    steps_s = profile.decode_step.at(batches, 0.0)
    fits = steps_s <= SLO.tpot_s
    if prompt_s > SLO.ttft_s or not fits.any():
        return None
    prefill_rps = 1 / prompt_s
    decode_rps = float((batches[fits] / (osl * steps_s[fits])).max())
    usd = USD_PER_GPU_HOUR[profile.accelerator] * TP
    for headroom in MULTIPLES:
        rate = headroom * workload.request_rate_rps
        prefill, decode = math.ceil(rate / prefill_rps), math.ceil(rate / decode_rps)
        groups = [
            ReplicaGroup(profile=profile, role=Role.PREFILL, replicas=prefill),
            ReplicaGroup(profile=profile, role=Role.DECODE, replicas=decode),
        ]
        found = attained(groups, workload)
        if found >= SLO.attainment_ratio:
            name = profile.accelerator.partition("-")[0]
            return Sized(
                method=f"dynamo x{headroom:.2f}",
                fleet=f"{prefill} prefill {name} + {decode} decode {name}",
                usd_per_hour=(prefill + decode) * usd,
                attainment_ratio=found,
            )
    return None


def cheapest(found: Sequence[Sized | None]) -> Sized | None:
    """The one of least USD/h."""
    return min((f for f in found if f is not None), key=lambda f: f.usd_per_hour, default=None)


def methods(profiles: Sequence[Profile], workload: Workload) -> list[tuple[str, Sized | None]]:
    """Every method's fleet for these requests."""
    names = [p.accelerator for p in profiles]
    every, pair = tuple(Role), (Role.PREFILL, Role.DECODE)

    def planned(
        method: str, roles: Sequence[Role], on: Sequence[str]
    ) -> Callable[[], Sized | None]:
        return lambda: by_plan(method, spec_of(profiles, roles, on), workload)

    tried: list[tuple[str, list[Callable[[], Sized | None]]]] = [
        (
            "plan as it comes",
            [lambda: as_it_comes("plan", spec_of(profiles, every, names), workload)],
        ),
        ("plan", [planned("plan", every, names)]),
        ("dynamo, best headroom", [lambda p=p: by_dynamo(p, workload) for p in profiles]),
        ("disaggregated only", [planned("disaggregated only", pair, names)]),
        ("aggregated only", [planned("aggregated only", (Role.AGGREGATED,), names)]),
        ("one accelerator", [planned(f"only {n}", every, [n]) for n in names]),
    ]
    return [(name, cheapest([_tried(ask) for ask in asks])) for name, asks in tried]


def _tried(ask: Callable[[], Sized | None]) -> Sized | None:
    try:
        return ask()
    except OutsideProfileError:
        return None


def _named(method: str, sized: Sized) -> str:
    _, times, multiple = sized.method.rpartition("x")
    return f"{method} x{multiple}" if times else method


def main() -> int:
    data = os.environ.get("POOLWISE_DATA")
    if data is None:
        print("POOLWISE_DATA is not set: it names the folder with traces/", file=sys.stderr)
        return 1
    profiles = read_profiles(Path(data))
    print(f"promise: TTFT {SLO.ttft_s} s, {1e3 * SLO.tpot_s:.0f} ms a token, for 95 %\n")
    print("| trace | method | fleet | USD/h | against the plan | real requests in time |")
    print("|---|---|---|---|---|---|")
    for title, name in TRACES:
        workload = busiest(Path(data) / "traces" / name)
        label = (
            f"{title}, {workload.request_rate_rps:.1f}/s of {workload.input_tokens.mean():,.0f} + "
            f"{workload.output_tokens.mean():,.0f}"
        )
        found = methods(profiles, workload)
        best = next((s.usd_per_hour for n, s in found if n == "plan" and s is not None), math.nan)
        for method, sized in found:
            if sized is None:
                print(f"| {label} | {method} | none keeps the promise | | | |")
                continue
            print(
                f"| {label} | {_named(method, sized)} | {sized.fleet} | {sized.usd_per_hour:,.2f} "
                f"| {sized.usd_per_hour / best - 1:+.0%} | {sized.attainment_ratio:.1%} |"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
