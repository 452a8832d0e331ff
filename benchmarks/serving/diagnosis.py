"""Whether the diagnosis names what was made short: real CPU engines, put into one state each.

One prefill and one decode worker at half a core each (a pair of its own for some states), behind
smg. Each state is held while the deployment is watched; what was asked stands beside what was
found. States that this machine cannot bring about are named below the table.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.profiling.engines import MODEL, QUOTA_CORES, Engines, engines
from benchmarks.serving.steady import LoadShape, SteadyLoad, steady_load
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.plan import Bottleneck
from planner.domain.slo import Slo
from serving.diagnosis.conclude import diagnose
from serving.diagnosis.finding import Finding
from serving.diagnosis.watched import Yardsticks
from serving.diagnosis.watching import WatchPlan, watch
from serving.telemetry.signals import TargetKind
from serving.telemetry.targets import Target, metrics_page

PLAN = WatchPlan(for_s=20.0, every_s=0.5)
SEQUENCES = 48
LONGEST = 8192
DECODE = ReplicaShape(role=Role.DECODE, model=MODEL, accelerator="cpu-slot")
Say = Callable[[str], None]

NOT_PROVOKED = (
    "network: one loopback link carries more than two half cores can move",
    "cache transfer by a slow link: loopback cannot be slowed without touching the whole machine; "
    "it is provoked by prompts that prefill finds in its cache and decode does not",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One state of the deployment, and what it makes short.

    Parameters
    ----------
    decode : ReplicaShape
        The decode worker that it needs.
    decode_cores : float
        Its quota meanwhile.
    straight_to_prefill : bool
        Whether requests pass by the router, to one prefill worker of two.
    warm_s : float
        Load before it is watched, seconds.
    """

    name: str
    asked: Bottleneck
    load: LoadShape | None
    decode: ReplicaShape = DECODE
    decode_cores: float = QUOTA_CORES
    straight_to_prefill: bool = False
    warm_s: float = 5.0


STATES = (
    State(name="no traffic", asked=Bottleneck.NONE, load=None),
    State(
        name="light load",
        asked=Bottleneck.NONE,
        load=LoadShape(rate_rps=0.5, prompt_tokens=64, answer_tokens=16),
    ),
    State(
        name="prompt flood",
        asked=Bottleneck.PREFILL,
        load=LoadShape(rate_rps=3.0, prompt_tokens=512, answer_tokens=2),
    ),
    State(
        name="long answers",
        asked=Bottleneck.DECODE,
        load=LoadShape(rate_rps=2.0, prompt_tokens=32, answer_tokens=400),
        warm_s=20.0,
    ),
    State(
        name="decode held to 0.12 cores",
        asked=Bottleneck.DECODE,
        load=LoadShape(rate_rps=0.5, prompt_tokens=64, answer_tokens=48),
        decode_cores=0.12,
    ),
    State(
        name="prompts cached at prefill only",
        asked=Bottleneck.CACHE_TRANSFER,
        load=LoadShape(rate_rps=1.5, prompt_tokens=3930, answer_tokens=2, shared_tokens=3920),
        warm_s=30.0,
        decode=replace(DECODE, engine_flags=("--no-enable-prefix-caching",)),
    ),
    State(
        name="KV cache of 20 blocks at decode",
        asked=Bottleneck.MEMORY,
        load=LoadShape(rate_rps=1.2, prompt_tokens=300, answer_tokens=80),
        decode=replace(DECODE, engine_flags=("--num-gpu-blocks-override", "20")),
    ),
    State(
        name="max_num_seqs 2 at decode",
        asked=Bottleneck.BATCHING,
        load=LoadShape(rate_rps=1.2, prompt_tokens=32, answer_tokens=80),
        decode=replace(DECODE, max_num_seqs=2),
    ),
    State(
        name="all prompts to one of two prefill workers",
        asked=Bottleneck.SCHEDULING,
        load=LoadShape(rate_rps=3.0, prompt_tokens=512, answer_tokens=1),
        straight_to_prefill=True,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was found in a state, with objectives and without any yardstick."""

    state: State
    found: Finding
    without: Finding


def run(folder: Path, say: Say) -> str:
    """Put a real deployment into each state and diagnose it; the table."""
    outcomes: list[Outcome] = []
    with engines(
        (Role.PREFILL, Role.DECODE), folder, say, sequences=SEQUENCES, longest=LONGEST
    ) as now:
        slo = _objectives(now, say)
        current = now.workers[1]
        shape = DECODE
        for state in STATES:
            if state.straight_to_prefill:
                shape = ReplicaShape(role=Role.PREFILL, model=MODEL, accelerator="cpu-slot")
            elif state.decode != shape:
                now.deployment.drain(current)
                now.deployment.stop(current)
                shape = state.decode
                current = _started(now, shape)
            if state.straight_to_prefill:
                _started(now, shape)
            outcomes.append(_held(now, state, slo, say))
    return _table(outcomes, slo)


def _started(now: Engines, shape: ReplicaShape):  # noqa: ANN202  the launcher's own type
    worker = now.deployment.start(shape)
    now.deployment.await_ready(worker)
    now.deployment.route(worker)
    return worker


def _objectives(now: Engines, say: Say) -> Slo:
    """Three times what a short request takes alone."""
    load = SteadyLoad(
        url=now.url,
        model=MODEL,
        shape=LoadShape(rate_rps=0.5, prompt_tokens=64, answer_tokens=24),
        writer=now.writer(),
    )
    with steady_load(load):
        time.sleep(12.0)
    whole = [a for a in load.answers if not a.error]
    if len(whole) < 3:
        raise RuntimeError(f"the pair does not answer: {[a.error for a in load.answers]}")
    ttft = sorted(a.ttft_s for a in whole)[len(whole) // 2]
    tpot = sorted(a.tpot_s for a in whole)[len(whole) // 2]
    say(f"alone: TTFT {ttft * 1000:.0f} ms, {tpot * 1000:.1f} ms a token")
    return Slo(model=MODEL, ttft_s=3 * ttft, tpot_s=3 * tpot)


def _targets(now: Engines) -> tuple[Target, ...]:
    router = now.deployment.router
    workers = [
        Target(
            name=worker.name,
            url=worker.url,
            metrics_url=metrics_page(worker.url),
            kind=TargetKind.ENGINE,
            role=worker.shape.role,
        )
        for worker in now.deployment.launcher.workers
    ]
    metrics_url = str(getattr(router, "metrics_url", ""))
    front = Target(name="router", url=router.url, metrics_url=metrics_url, kind=TargetKind.ROUTER)
    return (*workers, front)


def _held(now: Engines, state: State, slo: Slo, say: Say) -> Outcome:
    with _quota(now, state), _loaded(now, state) as load:
        time.sleep(state.warm_s)
        watched = watch(
            _targets(now), PLAN, Yardsticks(slo=slo), clock=time.monotonic, sleep=time.sleep
        )
    found = diagnose(watched)
    without = diagnose(replace(watched, yardsticks=Yardsticks()))
    failed = sum(bool(a.error) for a in load.answers) if load else 0
    say(
        f"{state.name}: asked {state.asked}, found {found.bottleneck} ({found.confidence}); "
        f"{failed} of {len(load.answers) if load else 0} requests failed; {found.summary}"
    )
    for evidence in found.evidence:
        say(f"    {evidence.text}")
    for other in found.others[:4]:
        say(
            f"    beside: {other.bottleneck} {other.role} {other.pressure_ratio:.2f} "
            f"short={other.is_short} held up {other.held_up_requests:.1f}: "
            + "; ".join(e.text for e in other.evidence)
        )
    for u in found.unjudged:
        say(f"    unjudged: {u.bottleneck} {u.role}: {u.reason}")
    return Outcome(state=state, found=found, without=without)


@contextmanager
def _quota(now: Engines, state: State) -> Iterator[None]:
    if state.decode_cores == QUOTA_CORES:
        yield
        return
    worker = next(w for w in now.deployment.launcher.workers if w.shape.role is Role.DECODE)
    group = now.deployment.launcher.process_of(worker)[1]
    if group is None:
        raise RuntimeError("no control group: run as root")
    group.limit(state.decode_cores)
    try:
        yield
    finally:
        group.limit(QUOTA_CORES)


@contextmanager
def _loaded(now: Engines, state: State) -> Iterator[SteadyLoad | None]:
    if state.load is None:
        yield None
        return
    load = SteadyLoad(
        url=now.workers[0].url if state.straight_to_prefill else now.url,
        model=MODEL,
        shape=state.load,
        writer=now.writer(),
    )
    with steady_load(load):
        yield load


def _table(outcomes: list[Outcome], slo: Slo) -> str:
    right = sum(o.found.bottleneck is o.state.asked for o in outcomes)
    lines = [
        f"{right} of {len(outcomes)} states were named right (objectives: TTFT "
        f"{slo.ttft_s:.2f} s, {slo.tpot_s * 1000:.0f} ms a token, three times those alone).",
        "",
        "| state | asked | found | sure | first evidence | without objectives |",
        "|---|---|---|---|---|---|",
    ]
    for one in outcomes:
        evidence = one.found.evidence[0].text if one.found.evidence else "-"
        without = one.without.bottleneck or "cannot be told"
        lines.append(
            f"| {one.state.name} | {one.state.asked} | {one.found.bottleneck or 'cannot be told'} "
            f"| {one.found.confidence} | {evidence} | {without} |"
        )
    return "\n".join([*lines, "", "Not provoked here:", *(f"- {n}" for n in NOT_PROVOKED)])
