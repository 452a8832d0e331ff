"""Splitwise's questions: how many prompt and token machines, at equal power or cost.

Machines are replicas of Llama-2-70B on 8 A100 or 8 H100, times as Splitwise measured them; a design
takes prompt (prefill) machines of one kind and token (decode) machines of one kind. Lengths are
those of Azure's code and conversation traces (one hour, cut at the longest prompt that was
measured), arrivals Poisson, as in their traces. Their objectives are slowdowns against an idle A100
machine; 90 % within 3 times TTFT and 1.5 times TBT is said here in seconds, of the prompt that 90 %
do not exceed.

The published designs come from a simulator that differs from the measurements in two ways
(`as_simulated`) and tried machines in steps of five: of 40, 35 + 5 is the most prefill it tried.

References
----------
Patel et al., *Splitwise*, ISCA 2024, arXiv 2311.18677; designs, powers and prices from the
notebooks of Mutinifni/splitwise-sim (MIT), steps from its `configs/experiment`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.bench_sizing import (
    LONGEST_ANSWER,
    LONGEST_PROMPT,
    MEMORY_BYTES,
    MODEL,
    NOW,
    PERF_MODEL,
    SLO,
    TP,
    USD_PER_GPU_HOUR,
    WEIGHT_BYTES,
    known,
    read_profiles,
    spec_of,
)
from forecaster.readers import read_trace
from forecaster.rescale import rescale
from planner.domain.fleet import Role
from planner.domain.forecast import Forecast
from planner.domain.hardware import Accelerator
from planner.domain.profile import Profile, TimeTable
from planner.domain.slo import Slo
from planner.domain.spec import Budget, Objective, PlanningSettings, Spec
from planner.optimize import Problem, build_problem, optimize, plan
from profiler.imports.splitwise import Table, read_table

A100, H100 = "a100-80gb", "h100-80gb"
TRACES = {
    "conversation": "AzureLLMInferenceTrace_conv.csv",
    "coding": "AzureLLMInferenceTrace_code.csv",
}
KINDS = {"Splitwise-AA": (A100, A100), "Splitwise-HH": (H100, H100), "Splitwise-HA": (H100, A100)}
"""Prompt and token machines. HHcap is left out: its H100s were scaled, not measured."""

BASELINES = {"Baseline-A100": A100, "Baseline-H100": H100}

MACHINES_H100 = 40
"""Of the budgets: as much power, or cost, as so many H100 machines."""

RATE_RPS = 70.0
"""At which prompt machines per token machine are compared; section 7 of the paper serves 70/s."""

MORE_THAN_SERVED_RPS = 2_000.0
TTFT_SLOWDOWN, TBT_SLOWDOWN, LEVEL = 3.0, 1.5, 0.9
MOST_MACHINES = 120
SIMULATED_SEQUENCES = 512
"""`max_batch_size` of their machines."""
SIMULATED_KV_BYTES = 2 * 8_192 * 80 * 2
"""Of a token: hidden size x layers; Llama-2-70B shares keys and values of 8 heads, an eighth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Machines of a design, and requests/s that our model says it sustains."""

    prefill: int
    decode: int
    rps: float

    @property
    def text(self) -> str:
        """As in `25 + 15 (1.67)`."""
        return f"{self.prefill} + {self.decode} ({self.ratio:.2f})"

    @property
    def ratio(self) -> float:
        """Prefill machines per decode machine."""
        return self.prefill / self.decode


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Load:
    """Requests of one trace, one a second, the machines that may serve them, the objectives."""

    forecast: Forecast
    profiles: Sequence[Profile]
    slo: Slo

    @property
    def spec(self) -> Spec:
        """Every machine in every role."""
        spec = spec_of(self.profiles, tuple(Role), list(USD_PER_GPU_HOUR), slo=self.slo)
        more = tuple(replace(a, inventory=MOST_MACHINES * TP) for a in spec.accelerators)
        return replace(spec, accelerators=more)

    def only(self, roles: Sequence[tuple[Role, str]]) -> Spec:
        """The spec with these roles on these accelerators only."""
        spec = self.spec
        kept = tuple(p for p in spec.pools if (p.shape.role, p.shape.accelerator) in roles)
        return replace(spec, pools=kept)

    def at(self, rate_rps: float) -> Forecast:
        """So many requests a second."""
        windows = tuple(window.times(rate_rps) for window in self.forecast.windows)
        return replace(self.forecast, windows=windows)


def read_load(data: Path, trace: str) -> Load:
    """A trace below `data`."""
    read = read_trace(data / "traces" / TRACES[trace]).workload
    workload = rescale(
        read,
        length_ratio=1.0,
        rate_ratio=1.0,
        max_input_tokens=LONGEST_PROMPT,
        max_output_tokens=LONGEST_ANSWER,
    )
    hour = known(workload)
    window = hour.windows[0].times(1 / workload.request_rate_rps)
    poisson = tuple(replace(demand, arrival_cv2=1.0) for demand in window.demands)
    forecast = replace(hour, windows=(replace(window, demands=poisson),))
    profiles = read_profiles(data)
    idle = next(p for p in profiles if p.accelerator == A100)
    prompt = poisson[0].shape.isl_quantile(LEVEL)
    slo = replace(
        SLO,
        ttft_s=TTFT_SLOWDOWN * float(idle.prefill.at(prompt, 0.0)),
        tpot_s=TBT_SLOWDOWN * float(idle.decode_step.at(1.0, 0.0)),
        attainment_ratio=LEVEL,
    )
    return Load(forecast=forecast, profiles=profiles, slo=slo)


def as_simulated(load: Load, data: Path) -> Load:
    """The load on machines as splitwise-sim has them.

    A decode step of b sequences takes what was measured for prompts x batch = b tokens
    (`DatabasePerformanceModel`: a sequence counts as one token), so that 512 sequences take about
    as long as one; and the KV cache is that of a model without grouped heads
    (`estimate_kv_cache_size`), eight times Llama-2-70B's.
    """
    table = read_table(data / PERF_MODEL)
    return replace(load, profiles=[_simulated(p, table) for p in load.profiles])


def _simulated(profile: Profile, table: Table) -> Profile:
    times: dict[int, list[float]] = {}
    for row in table.of(model=MODEL, accelerator=profile.accelerator, tp=TP):
        times.setdefault(row.prompt_tokens * row.sequences, []).append(row.token_s)
    sizes = sorted(n for n in times if n <= SIMULATED_SEQUENCES)
    seconds = np.maximum.accumulate([float(np.median(times[n])) for n in sizes])
    step = profile.decode_step
    return replace(
        profile,
        decode_step=TimeTable(
            x_name=step.x_name,
            y_name=step.y_name,
            x=np.array(sizes, dtype=np.float64),
            y=np.zeros(1),
            seconds=seconds[:, None],
        ),
        limits=replace(
            profile.limits,
            max_num_seqs=SIMULATED_SEQUENCES,
            kv_capacity_tokens=int((TP * MEMORY_BYTES - WEIGHT_BYTES) / SIMULATED_KV_BYTES),
        ),
    )


def split(kind: str) -> tuple[tuple[Role, str], ...]:
    """Roles and accelerators of a design."""
    prefill, decode = KINDS[kind]
    return (Role.PREFILL, prefill), (Role.DECODE, decode)


def planned(load: Load, kind: str) -> Design:
    """The cheapest machines of a design for `RATE_RPS`, proven in the twin."""
    made = plan(load.only(split(kind)), load.at(RATE_RPS), None, made_at=NOW)
    first = made.windows[0]
    prefill, decode = first.replicas(Role.PREFILL), first.replicas(Role.DECODE)
    return Design(prefill=prefill, decode=decode, rps=RATE_RPS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """Designs of the paper, what a machine takes, and what all may take together.

    Parameters
    ----------
    designs : dict
        By `isopower_conversation` and the like, then by kind: machines.
    power_w : dict
        Of one machine, on their relative scale, taken as kilowatts.
    """

    designs: dict[str, dict[str, list[int] | int]]
    power_w: dict[str, float]

    def machines(self, name: str, kind: str) -> tuple[int, int]:
        """Prompt and token machines of a published design."""
        machines = self.designs[name][kind]
        if isinstance(machines, int):
            raise ValueError(f"{kind} of {name} is a baseline: its machines have no roles")
        return machines[0], machines[1]

    def baseline(self, name: str, kind: str) -> int:
        """Machines of a published baseline."""
        machines = self.designs[name][kind]
        if not isinstance(machines, int):
            raise ValueError(f"{kind} of {name} is no baseline: its machines have roles")
        return machines

    def powered(self, accelerators: Sequence[Accelerator]) -> tuple[Accelerator, ...]:
        """The same accelerators with their power."""
        return tuple(replace(a, power_w=self.power_w[a.name] / a.per_node) for a in accelerators)

    def of(self, question: str) -> Budget:
        """As much power, or cost, as the H100 machines of the baseline."""
        gpus = MACHINES_H100 * TP
        if question == "isocost":
            return Budget(usd_per_hour=gpus * USD_PER_GPU_HOUR[H100])
        return Budget(power_w=MACHINES_H100 * self.power_w[H100])


def read_budgets(data: Path) -> Budgets:
    """The published designs below `data`."""
    path = data / "profiles/published-results/splitwise_cluster_designs.json"
    content = json.loads(path.read_text())
    scale = content["per_machine"]["power_kw_rel"]
    power_w = {A100: 1e3 * scale["a100"], H100: 1e3 * scale["h100"]}
    return Budgets(designs=content["designs"], power_w=power_w)


def problem_within(
    load: Load, budgets: Budgets, question: str, roles: Sequence[tuple[Role, str]]
) -> Problem:
    """Most requests in time, of these machines within the budget."""
    spec = load.only(roles)
    limited = replace(
        spec,
        accelerators=budgets.powered(spec.accelerators),
        budget=budgets.of(question),
        planning=PlanningSettings(objective=Objective.GOODPUT),
    )
    return build_problem(limited, load.at(MORE_THAN_SERVED_RPS), None)


def best_design(problem: Problem) -> Design:
    """The split that serves most requests."""
    solution = optimize(problem)
    count = {
        role: int(solution.replicas[list(problem.in_role(role)), 0].sum())
        for role in (Role.PREFILL, Role.DECODE)
    }
    return Design(
        prefill=count[Role.PREFILL],
        decode=count[Role.DECODE],
        rps=float(solution.served_rps[list(problem.in_role(Role.PREFILL)), 0].sum()),
    )


def given_design(problem: Problem, prefill: int, decode: int) -> Design:
    """What our model says of a published split."""
    replicas = np.zeros((len(problem.options), 1), dtype=np.int64)
    replicas[list(problem.in_role(Role.PREFILL))] = prefill
    replicas[list(problem.in_role(Role.DECODE))] = decode
    return Design(prefill=prefill, decode=decode, rps=problem.serves_rps(replicas, 0))


def least(load: Load, budgets: Budgets, objective: Objective) -> str:
    """The machines of any kind and role for `RATE_RPS` that take least of something."""
    spec = replace(
        load.spec,
        accelerators=budgets.powered(load.spec.accelerators),
        planning=PlanningSettings(objective=objective),
    )
    problem = build_problem(spec, load.at(RATE_RPS), None)
    replicas = optimize(problem).replicas[:, 0]
    counted = zip(problem.options, replicas.tolist(), strict=True)
    return " + ".join(f"{n} {o.shape.role} {o.shape.accelerator[:4]}" for o, n in counted if n)


def table(data: Path) -> Iterator[str]:
    """Lines for people: machines at one rate, then designs at equal power and at equal cost."""
    loads = {trace: read_load(data, trace) for trace in TRACES}
    budgets = read_budgets(data)
    yield f"| machines for {RATE_RPS:.0f} requests/s | {' | '.join(TRACES)} | coding needs |"
    yield "|---|---|---|---|"
    for kind in KINDS:
        conversation, coding = (planned(loads[trace], kind) for trace in TRACES)
        times = coding.ratio / conversation.ratio
        yield f"| {kind} | {conversation.text} | {coding.text} | x{times:.1f} prefill per decode |"
    for objective in (Objective.COST, Objective.POWER, Objective.ACCELERATORS):
        found = [least(loads[trace], budgets, objective) for trace in TRACES]
        yield f"| least {objective} | {' | '.join(found)} | |"
    yield ""
    yield "| within, trace | machines | published | requests/s | found | requests/s | simulated |"
    yield "|---|---|---|---|---|---|---|"
    for name in budgets.designs:
        question, _, trace = name.partition("_")
        for kind in KINDS:
            yield f"| {question}, {trace} | {kind} | {_row(loads[trace], data, name, kind)} |"
        for kind, accelerator in BASELINES.items():
            machines, roles = budgets.baseline(name, kind), ((Role.AGGREGATED, accelerator),)
            measured, simulated = (
                problem_within(load, budgets, question, roles).capacity[0, 0].at(machines)
                for load in (loads[trace], as_simulated(loads[trace], data))
            )
            cells = f"{machines} | {measured:.0f} | | | {simulated:.0f}/s"
            yield f"| {question}, {trace} | {kind} | {cells} |"


def _row(load: Load, data: Path, name: str, kind: str) -> str:
    """A published design, ours, and ours with times and memory of their simulator."""
    budgets, question = read_budgets(data), name.partition("_")[0]
    problem = problem_within(load, budgets, question, split(kind))
    theirs = given_design(problem, *budgets.machines(name, kind))
    ours = best_design(problem)
    simulated = best_design(
        problem_within(as_simulated(load, data), budgets, question, split(kind))
    )
    cells = [theirs.text, f"{theirs.rps:.0f}", ours.text, f"{ours.rps:.0f}"]
    return " | ".join([*cells, f"{simulated.text}: {simulated.rps:.0f}/s"])
