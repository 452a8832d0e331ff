"""Diagnosing a live deployment as people ask for it."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from planner.domain.errors import EngineError, InputError
from planner.domain.plan import Bottleneck
from planner.domain.profile import Profile
from planner.domain.slo import Slo
from planner.service.live.kv_watching import KvSource, watch_once
from planner.service.live.perturbing import perturb_server
from planner.service.spec.file import read_spec
from profiler.files import read_profile
from profiler.live.perturb import PerturbPlan, Response, bottleneck_of
from serving.diagnosis.caching import cache_use_of
from serving.diagnosis.conclude import diagnose
from serving.diagnosis.finding import Finding
from serving.diagnosis.watched import Watch, Yardsticks
from serving.diagnosis.watching import WatchPlan, watch
from serving.kv.view import KvSnapshot
from serving.telemetry.targets import Target

MOST_EXTRA_RATIO = 0.3
"""The most load that an experiment may add to a live deployment, of one saturated replica."""
_KINDS = {
    "prefill": Bottleneck.PREFILL,
    "decode": Bottleneck.DECODE,
    "requests": Bottleneck.SCHEDULING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Added load, where telemetry alone cannot tell.

    Parameters
    ----------
    url : str
        Where requests go in.
    model : str or None
        Served name, if not the profile's.
    profile : Path
        Of a replica: what a tenth of it is.
    """

    url: str
    model: str | None
    profile: Path
    plan: PerturbPlan

    def __post_init__(self) -> None:
        if self.plan.extra_ratio > MOST_EXTRA_RATIO:
            raise InputError(
                f"--extra {self.plan.extra_ratio:g}: an experiment on a live deployment adds at "
                f"most {MOST_EXTRA_RATIO:g} of a replica"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosed:
    """The finding, and what the experiment showed where there was one.

    Parameters
    ----------
    responses : tuple of Response or None
        None: no experiment was made.
    by_experiment : Bottleneck or None
        What it found; `none`: room for every kind of load.
    """

    finding: Finding
    responses: tuple[Response, ...] | None = None
    by_experiment: Bottleneck | None = None


def diagnose_live(
    targets: Sequence[Target],
    plan: WatchPlan,
    yardsticks: Yardsticks,
    experiment: Experiment | None,
    caches: KvSource | None = None,
) -> Diagnosed:
    """Watch, judge, and add load only where that does not tell.

    Parameters
    ----------
    caches : KvSource or None
        Workers whose KV events are listened to meanwhile. Where they cannot be, the rest is
        judged without.

    Raises
    ------
    EngineError
        When no worker answers.
    ProfileError, InputError, OperationError
        From the experiment: it stops itself when the deployment slows down too much.
    """
    with ThreadPoolExecutor(max_workers=1) as beside:
        seen = None if caches is None else beside.submit(watch_once, caches, for_s=plan.for_s)
        watched = watch(targets, plan, yardsticks, clock=time.monotonic, sleep=time.sleep)
    if seen is not None:
        watched = _with_caches(watched, seen)
    if not any(w.signals.answers for w in watched.workers):
        told = "; ".join(f"{w.signals.name}: {w.signals.note}" for w in watched.workers)
        raise EngineError(f"no worker answers, so nothing can be diagnosed: {told or 'none given'}")
    finding = diagnose(watched)
    if experiment is None or finding.bottleneck is not None:
        return Diagnosed(finding=finding)
    responses = tuple(
        perturb_server(experiment.profile, experiment.url, experiment.model, experiment.plan)
    )
    kind = bottleneck_of(responses)
    return Diagnosed(
        finding=finding,
        responses=responses,
        by_experiment=Bottleneck.NONE if kind is None else _KINDS[kind],
    )


def _with_caches(watched: Watch, seen: Future[KvSnapshot]) -> Watch:
    try:
        return replace(watched, caches=cache_use_of(seen.result()))
    except EngineError as error:
        return replace(watched, no_caches=str(error))


def yardsticks_of(
    spec: Path | None,
    profiles: Sequence[Path],
    *,
    model: str | None,
    max_num_seqs: int | None,
    link_bytes_per_s: float | None,
) -> Yardsticks:
    """What there is to compare with: a spec's promises and profiles, and single profiles.

    Raises
    ------
    SpecError, ProfileError
    """
    slos: tuple[Slo, ...] = ()
    known: list[Profile] = [read_profile(path) for path in profiles]
    if spec is not None:
        read = read_spec(spec)
        slos = tuple(s for s in read.slos if model in (None, s.model))
        known += [p for p in read.profiles if model in (None, p.model)]
    return Yardsticks.of(slos, known, max_num_seqs=max_num_seqs, link_bytes_per_s=link_bytes_per_s)
