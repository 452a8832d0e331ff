"""What became of the requests, and what the fleet cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.autoscale.backtest.pair import ROLES, PoolPair
from planner.autoscale.backtest.running import Run
from planner.domain.slo import Slo
from planner.domain.workload import Workload
from planner.simulate import ReplicaGroup, Scenario, simulate

Flags = NDArray[np.bool_]

ALONE_S = 3600.0
"""Between requests that are to meet no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What counts of a run: of requests and of time after the warm-up.

    Parameters
    ----------
    attainment_ratio, attainable_ratio : float
        Share of all requests that met both objectives, and of those that would on an idle fleet;
        1 where there were none.
    accelerator_hours : float
        Paid, from ordering a replica until it is gone; to the workload's end, and beyond while
        requests were left.
    by_role : tuple of float
        The same for prefill and decode.
    most_decided_s, mean_decided_s : float
        Of the policy's decisions, processor seconds; 0 where they are not timed.
    """

    requests: int
    attainment_ratio: float
    attainable_ratio: float
    accelerator_hours: float
    by_role: tuple[float, float]
    most_decided_s: float = 0.0
    mean_decided_s: float = 0.0


def attainable(pair: PoolPair, workload: Workload) -> Flags:
    """(requests,) which would meet both objectives alone on an idle fleet, by the twin."""
    alone = replace(
        workload,
        arrival_offset_s=ALONE_S * np.arange(len(workload), dtype=np.float64),
        duration_s=ALONE_S * max(len(workload), 1),
    )
    groups = tuple(
        ReplicaGroup(profile=profile, role=role, replicas=1)
        for profile, role in zip(pair.profiles, ROLES, strict=True)
    )
    seen = simulate(Scenario(groups=groups, workload=alone, prefix_cache=False))
    return _met(pair.slo, seen.ttft_s, seen.tpot_s)


def _met(slo: Slo, ttft_s: NDArray[np.float64], tpot_s: NDArray[np.float64]) -> Flags:
    return np.asarray(slo.met(ttft_s=ttft_s, tpot_s=tpot_s) & np.isfinite(ttft_s), dtype=np.bool_)


def figures(
    run: Run,
    workload: Workload,
    *,
    slo: Slo,
    able: Flags,
    accelerators: Sequence[int],
    warm_s: float,
) -> Figures:
    """Count what arrived after `warm_s` seconds, and what was paid since then.

    Parameters
    ----------
    able : (requests,) bool
        Those that are attainable.
    accelerators : (prefill, decode) int
        Of one replica.
    """
    judged = workload.arrival_offset_s >= warm_s
    met = _met(slo, run.ttft_s, run.tpot_s)
    by_role = hours(run.paid, from_s=warm_s, to_s=max(workload.duration_s, run.end_s))
    own = [n * h for n, h in zip(accelerators, by_role, strict=True)]
    decided = run.decided_s or (0.0,)
    return Figures(
        requests=int(judged.sum()),
        attainment_ratio=_share(met, judged),
        attainable_ratio=_share(met, judged & able),
        accelerator_hours=sum(own),
        by_role=(own[0], own[1]),
        most_decided_s=max(decided),
        mean_decided_s=float(np.mean(decided)),
    )


def _share(met: Flags, among: Flags) -> float:
    return float(met[among].mean()) if among.any() else 1.0


def hours(
    paid: Sequence[tuple[float, int, int]], *, from_s: float, to_s: float
) -> tuple[float, ...]:
    """Replica-hours of each role between two instants."""
    since = np.clip([t for t, *_ in paid], from_s, to_s)
    until = np.append(since[1:], to_s)
    counts = np.array([row[1:] for row in paid], dtype=np.float64).reshape(-1, len(ROLES))
    totals = (until - since) @ counts / 3600
    return tuple(float(total) for total in totals)
