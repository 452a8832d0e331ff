"""What became of the requests, and what the fleet cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.closed_loop.settings import ROLES, Setting
from planner.domain.workload import Workload

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """One policy on one workload in one simulator.

    Parameters
    ----------
    ttft_s, tpot_s : (requests,) float, seconds
        In the workload's order. NaN in `ttft_s`: not answered; in `tpot_s`: one output token.
    paid : sequence of (float, int, int)
        From when on how many prefill and decode replicas were paid for, draining ones included;
        seconds from the start, increasing.
    end_s : float
        When the last request had ended.
    decided_s : tuple of float
        How long each decision took, processor seconds.
    """

    ttft_s: Floats
    tpot_s: Floats
    paid: tuple[tuple[float, int, int], ...]
    end_s: float
    decided_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What counts of a run: of requests and of time after the warm-up.

    Parameters
    ----------
    attainment_ratio, attainable_ratio : float
        Share of all requests that met both objectives, and of those that would on an idle fleet.
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


def attainable(setting: Setting, workload: Workload) -> Flags:
    """(requests,) which would meet both objectives alone on an idle fleet."""
    timing, engine = setting.timing, setting.engine
    tokens = workload.input_tokens.astype(np.float64)
    answer = np.maximum(workload.output_tokens - 1, 0)
    prompt_s = (
        timing.prefill_base_s
        + timing.prefill_token_s * tokens
        + timing.prefill_token2_s * tokens**2
    )
    steps = -(-tokens // engine.max_num_batched_tokens)
    prompt_s += np.maximum(steps - 1, 0) * timing.prefill_base_s
    transfer_s = tokens * engine.kv_bytes_per_token / engine.transfer_bytes_per_s

    def step_s(context: Floats) -> Floats:
        return (
            timing.decode_base_s
            + timing.decode_sequence_s
            + timing.decode_context_token_s * context
        )

    ttft_s = prompt_s + transfer_s + step_s(tokens)
    tpot_s = step_s(tokens + answer / 2)
    return np.asarray((ttft_s <= setting.ttft_s) & (tpot_s <= setting.tpot_s), dtype=np.bool_)


def figures(run: Run, setting: Setting, workload: Workload, *, warm_s: float) -> Figures:
    """Count what arrived after `warm_s` seconds, and what was paid since then."""
    judged = workload.arrival_offset_s >= warm_s
    able = attainable(setting, workload) & judged
    met = setting.slo().met(ttft_s=run.ttft_s, tpot_s=run.tpot_s) & np.isfinite(run.ttft_s)
    by_role = hours(run.paid, from_s=warm_s, to_s=max(workload.duration_s, run.end_s))
    own = [setting.tp * h for h in by_role]
    decided = run.decided_s or (0.0,)
    return Figures(
        requests=int(judged.sum()),
        attainment_ratio=float(met[judged].mean()),
        attainable_ratio=float(met[able].mean()),
        accelerator_hours=sum(own),
        by_role=(own[0], own[1]),
        most_decided_s=max(decided),
        mean_decided_s=float(np.mean(decided)),
    )


def hours(
    paid: Sequence[tuple[float, int, int]], *, from_s: float, to_s: float
) -> tuple[float, ...]:
    """Replica-hours of each role between two instants."""
    since = np.clip([t for t, *_ in paid], from_s, to_s)
    until = np.append(since[1:], to_s)
    counts = np.array([row[1:] for row in paid], dtype=np.float64).reshape(-1, len(ROLES))
    totals = (until - since) @ counts / 3600
    return tuple(float(total) for total in totals)
