"""Scenarios in which the twin is a queue of the textbooks, and what is observed of it.

The work of a request is 1 s on average. Where prompts carry it, a replica has one slot and its
prefill table is a line through 0; where answers carry it, a step is so short that joining at the
end of a step costs at most three millionths of the mean work. The other half of the deployment
takes nanoseconds.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.stats import poisson
from scipy.stats import t as student

from planner.domain.fleet import Role
from planner.domain.profile import EngineLimits, Profile, TimeTable
from planner.domain.workload import Workload
from planner.simulate import ReplicaGroup, RouterPolicy, Scenario, SimulationResult, simulate
from tests.fakes.profiles import linear_profile
from tests.fakes.workloads import START_AT
from tests.planner.simulate.closed_forms import WaitLaw, in_turn_m1, mdc, mg1_mean_s, mmc

Floats = NDArray[np.float64]

PROMPT_TOKENS = 1_000_000  # of 1 s of prompt work
SLOT_STEP_S = 1e-6
SHARED_STEP_S = 1e-5
CHUNKS = 30  # steps in 1 s of prompt work where routing must see what is left of it
MOST_PRESENT = 1_024  # P(N >= 1024) < 1e-22 at the highest load
NOTHING_S = 1e-5  # no wait, but for the ends of steps

SHORT_S, LONG_S, SHORT_SHARE = 0.5, 5.5, 0.9  # mean 1, squared coefficient of variation 2.25


class Work(StrEnum):
    """How the work of requests is distributed, mean 1 s."""

    EXPONENTIAL = "M"
    CONSTANT = "D"
    TWO_POINT = "G"

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """(count,) seconds."""
        if self is Work.EXPONENTIAL:
            return rng.exponential(1.0, count)
        if self is Work.CONSTANT:
            return np.ones(count)
        return np.where(rng.random(count) < SHORT_SHARE, SHORT_S, LONG_S)


class Counter(StrEnum):
    """A number present that the twin samples."""

    PROMPT_LINE = "prompts in line"
    ANSWER_LINE = "answers in line"
    BATCH = "sequences in the batch"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """One run; its requests after the warm-up."""

    result: SimulationResult
    warm: int
    work_s: Floats
    wait_s: Floats
    sojourn_s: Floats
    present: Floats  # requests that each one found


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure with a closed form, and how a run tells it."""

    name: str
    closed_form: float
    of: Callable[[Seen], float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Queue:
    """One queue.

    Parameters
    ----------
    name : str
    load : float
        Of each server; for infinitely many: mean number present.
    rate_rps : float
    counter : Counter
        Where requests wait (or are served, if nobody waits).
    """

    name: str
    load: float
    rate_rps: float
    work: Work
    groups: tuple[ReplicaGroup, ...]
    router: RouterPolicy = RouterPolicy.LEAST_LOADED
    counter: Counter
    figures: tuple[Figure, ...]


def engine(
    *, slots: int, step_s: float = 1e-9, sequence_s: float = 0.0, prompt_s: float = 1e-3,
    chunk: int = 1 << 40,
) -> Profile:  # fmt: skip
    """A prompt takes `prompt_s` x tokens / 10^6; a step `step_s + sequence_s x batch`."""
    batch = np.array([1.0, slots + 1.0])
    return replace(
        linear_profile(transfer_base_s=0.0, transfer_bandwidth_bytes_per_s=1e30),
        prefill=TimeTable(
            x_name="new tokens",
            y_name="cached tokens",
            x=np.array([float(PROMPT_TOKENS)]),
            y=np.zeros(1),
            seconds=np.array([[prompt_s]]),
        ),
        decode_step=TimeTable(
            x_name="sequences",
            y_name="context tokens per sequence",
            x=batch,
            y=np.zeros(1),
            seconds=(step_s + sequence_s * batch)[:, None],
        ),
        limits=EngineLimits(
            kv_capacity_tokens=1 << 50,
            kv_bytes_per_token=1.0,
            max_num_seqs=slots,
            max_num_batched_tokens=chunk,
            max_model_len=1 << 50,
        ),
    )


def pair(prefill: Profile, replicas: int, decode: Profile) -> tuple[ReplicaGroup, ...]:
    """Prefill replicas and one decode replica."""
    return (
        ReplicaGroup(profile=prefill, role=Role.PREFILL, replicas=replicas),
        ReplicaGroup(profile=decode, role=Role.DECODE, replicas=1),
    )


def waits_of(law: WaitLaw) -> tuple[Figure, ...]:
    """Mean wait, and how often the 95th percentile of the closed form is exceeded."""
    rare_s, level = law.rare_wait()
    edge_s = max(rare_s, NOTHING_S)
    return (
        Figure(name="mean wait, s", closed_form=law.mean_s, of=lambda s: float(s.wait_s.mean())),
        Figure(
            name=f"P(wait > {rare_s:.3g} s)",
            closed_form=level,
            of=lambda s: float((s.wait_s > edge_s).mean()),
        ),
    )


def one_prefill(work: Work, load: float) -> Queue:
    """M/M/1, M/D/1, M/G/1: one prefill replica computes one prompt after another."""
    laws = {Work.EXPONENTIAL: mmc, Work.CONSTANT: mdc}
    mean_s = mg1_mean_s(load, SHORT_SHARE * SHORT_S**2 + (1 - SHORT_SHARE) * LONG_S**2)
    only_mean = Figure(name="mean wait, s", closed_form=mean_s, of=lambda s: float(s.wait_s.mean()))
    return Queue(
        name=f"M/{work}/1, a prefill replica",
        load=load,
        rate_rps=load,
        work=work,
        groups=pair(engine(slots=1, prompt_s=1.0), 1, engine(slots=64)),
        counter=Counter.PROMPT_LINE,
        figures=waits_of(laws[work](1, load)) if work in laws else (only_mean,),
    )


def prefill_pool(servers: int, load: float) -> Queue:
    """M/M/c: the least loaded replica is the one with the least work left, as from one line.

    With all of a prompt in one step the router would not see what of it is done; so it is
    computed in chunks of 1/30 of the mean.
    """
    chunked = engine(slots=1, prompt_s=1.0, chunk=PROMPT_TOKENS // CHUNKS)
    return Queue(
        name=f"M/M/{servers}, prefill replicas, least loaded",
        load=load,
        rate_rps=servers * load,
        work=Work.EXPONENTIAL,
        groups=pair(chunked, servers, engine(slots=64)),
        counter=Counter.PROMPT_LINE,
        figures=waits_of(mmc(servers, load)),
    )


def prefill_in_turn(work: Work, servers: int, load: float) -> Queue:
    """Round robin: M/D/c from one line, as equal prompts end in their order; else E_c/M/1."""
    constant = work is Work.CONSTANT
    return Queue(
        name=f"{f'M/D/{servers}' if constant else f'E{servers}/M/1'}, prefill replicas in turn",
        load=load,
        rate_rps=servers * load,
        work=work,
        groups=pair(engine(slots=1, prompt_s=1.0), servers, engine(slots=64)),
        router=RouterPolicy.ROUND_ROBIN,
        counter=Counter.PROMPT_LINE,
        figures=waits_of((mdc if constant else in_turn_m1)(servers, load)),
    )


def decode_slots(work: Work, servers: int, load: float) -> Queue:
    """M/M/c, M/D/c: c slots of one decode replica whose step does not depend on the batch."""
    return Queue(
        name=f"M/{work}/{servers}, slots of a decode replica",
        load=load,
        rate_rps=servers * load,
        work=work,
        groups=pair(engine(slots=1), 1, engine(slots=servers, step_s=SLOT_STEP_S)),
        counter=Counter.ANSWER_LINE,
        figures=waits_of({Work.EXPONENTIAL: mmc, Work.CONSTANT: mdc}[work](servers, load)),
    )


def shared(work: Work, load: float, role: Role) -> Queue:
    """M/G/1 processor sharing: a step takes as long as its batch is large.

    Mean sojourn of work x: x / (1 - load), whatever the distribution; P(N >= n) = load^n.

    References
    ----------
    Kleinrock, *Queueing Systems* 2 (1976), 4.4; Sakata, Noguchi and Oizumi (1971).
    """
    profile = engine(slots=MOST_PRESENT, step_s=1e-12, sequence_s=SHARED_STEP_S)
    many = int(np.ceil(np.log(0.05) / np.log(load)))
    long = Figure(
        name=f"mean sojourn of {LONG_S:g} s of work, s",
        closed_form=LONG_S / (1 - load),
        of=lambda s: float(s.sojourn_s[s.work_s > 1].mean()),
    )
    return Queue(
        name=f"M/{work}/1-PS, {role} replica",
        load=load,
        rate_rps=load,
        work=work,
        groups=_answering(profile, role),
        counter=Counter.BATCH,
        figures=(
            mean_sojourn(1 / (1 - load)),
            Figure(
                name=f"P(N >= {many})",
                closed_form=load**many,
                of=lambda s: float((s.present >= many).mean()),
            ),
            *((long,) if work is Work.TWO_POINT else ()),
        ),
    )


def unlimited(work: Work, mean_present: float, role: Role) -> Queue:
    """M/G/infinity: steps as long for any batch; the number present is Poisson."""
    many = int(poisson.ppf(0.95, mean_present))
    return Queue(
        name=f"M/{work}/inf, {role} replica",
        load=mean_present,
        rate_rps=mean_present,
        work=work,
        groups=_answering(engine(slots=MOST_PRESENT, step_s=SHARED_STEP_S), role),
        counter=Counter.BATCH,
        figures=(
            mean_sojourn(1.0),
            Figure(
                name="mean N",
                closed_form=mean_present,
                of=lambda s: float(s.present.mean()),
            ),
            Figure(
                name=f"P(N > {many})",
                closed_form=float(poisson.sf(many, mean_present)),
                of=lambda s: float((s.present > many).mean()),
            ),
        ),
    )


def mean_sojourn(closed_form: float) -> Figure:
    """From arrival to the last token."""
    return Figure(
        name="mean sojourn, s", closed_form=closed_form, of=lambda s: float(s.sojourn_s.mean())
    )


def _answering(profile: Profile, role: Role) -> tuple[ReplicaGroup, ...]:
    if role is Role.DECODE:
        return pair(engine(slots=1), 1, profile)
    return (ReplicaGroup(profile=profile, role=role, replicas=1),)


def token_s(queue: Queue) -> float:
    """Seconds of work in one token of what carries it."""
    if queue.counter is Counter.PROMPT_LINE:
        return 1 / PROMPT_TOKENS
    return SLOT_STEP_S if queue.counter is Counter.ANSWER_LINE else SHARED_STEP_S


def run(queue: Queue, *, requests: int, warm: int, replication: int) -> Seen:
    """One replication: its own stream of random numbers, from an empty system."""
    name = zlib.crc32(f"{queue.name} {queue.load:g}".encode())
    rng = np.random.default_rng([name, replication])
    arrival_s = np.cumsum(rng.exponential(1 / queue.rate_rps, requests))
    work_s = queue.work.draw(rng, requests)
    tokens = np.maximum(np.rint(work_s / token_s(queue)), 1).astype(np.int64)
    one = np.ones(requests, dtype=np.int64)
    by_prompt = queue.counter is Counter.PROMPT_LINE
    workload = Workload(
        start_at=START_AT,
        arrival_offset_s=arrival_s,
        input_tokens=tokens if by_prompt else one,
        output_tokens=one if by_prompt else tokens,
        cached_tokens=np.zeros(requests, dtype=np.int64),
        request_class=np.full(requests, "default"),
        duration_s=float(arrival_s[-1]),
    )
    scenario = Scenario(
        groups=queue.groups, workload=workload, router=queue.router, unstable_wait_s=np.inf
    )
    result = simulate(scenario)
    came_s, went_s = stays(result, queue.counter)
    ended_s = np.sort(arrival_s + result.e2e_s)
    found = np.arange(requests) - np.searchsorted(ended_s, arrival_s, side="right")
    return Seen(
        result=result,
        warm=warm,
        work_s=work_s[warm:],
        wait_s=(went_s - came_s)[warm:],
        sojourn_s=result.e2e_s[warm:],
        present=found[warm:].astype(np.float64),
    )


def stays(result: SimulationResult, counter: Counter) -> tuple[Floats, Floats]:
    """(requests,) instants at which each one comes to where the counter counts, and goes."""
    if counter is Counter.PROMPT_LINE:
        return result.arrival_s, result.prompt_started_s
    if counter is Counter.ANSWER_LINE:
        return result.prompt_done_s, result.decode_started_s
    return result.decode_started_s, result.arrival_s + result.e2e_s


def counted(result: SimulationResult, counter: Counter) -> Floats:
    """(points,) the twin's own samples of the number present."""
    if counter is Counter.BATCH:
        return result.series.running[-1].astype(np.float64)
    return result.series.waiting[int(counter is Counter.ANSWER_LINE)].astype(np.float64)


def little(result: SimulationResult, counter: Counter, warm: int) -> tuple[float, float]:
    """L by the twin's counters and lambda W by the requests' times, after the warm-up."""
    start_s, end_s = result.arrival_s[warm], result.arrival_s[-1]
    t_s = result.series.t_s
    inside = (t_s > start_s) & (t_s < end_s)
    came_s, went_s = stays(result, counter)
    those = (came_s >= start_s) & (came_s < end_s)
    rate_times_stay = float((went_s - came_s)[those].sum()) / (end_s - start_s)
    return float(counted(result, counter)[inside].mean()), rate_times_stay


def student_interval(values: Floats, *, confidence: float = 0.95) -> tuple[float, float]:
    """Mean over replications, and half the width of its confidence interval."""
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    quantile = float(student.ppf((1 + confidence) / 2, len(values) - 1))
    return float(values.mean()), quantile * error
