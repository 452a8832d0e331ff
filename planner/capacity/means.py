"""Mean latencies and throughput of a deployment: what metrics pages tell exactly."""

from collections.abc import Sequence
from dataclasses import dataclass

from planner.capacity.paths import Gaps, Path, PoolTraffic
from planner.capacity.split import LoadedPool, PoolLoad, paths_through, split_traffic
from planner.domain.fleet import Role
from planner.domain.workload import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What requests experience in the mean at a load.

    Parameters
    ----------
    ttft_s : float
        Over all requests that can be served.
    itl_s : float or None
        Over all gaps between tokens; None where no answer has two tokens.
    output_tokens_per_s : float
        What the pools generate: of the arrivals, those that they can do.
    """

    ttft_s: float
    itl_s: float | None
    output_tokens_per_s: float


def predict_means(
    pools: Sequence[PoolLoad],
    shape: Shape,
    *,
    request_rate_rps: float,
    arrival_cv2: float = 1.0,
    window_s: float = 300.0,
) -> Means | None:
    """The means of the closed form of `planner.capacity.deployment.predict`.

    TTFT: per path its fixed part, and the means of both waits in a row (of two backlogs the
    larger one, of which an arrival meets half). ITL: over the steps that gaps consist of.

    Parameters
    ----------
    window_s : float
        How long the rate lasts; matters under overload only.

    Returns
    -------
    Means or None
        None where no pool serves any request.

    Raises
    ------
    OutsideProfileError
        When the shape lies beyond what a profile measured.
    """
    traffic = PoolTraffic(rate_rps=request_rate_rps, arrival_cv2=arrival_cv2, window_s=window_s)
    loaded = split_traffic(pools, shape, traffic)
    paths = paths_through(loaded) if request_rate_rps > 0 else []
    shares = [float(shape.weight @ path.share) for path in paths]
    if sum(shares) <= 0:
        return None
    ttft_s = sum(_ttft_s(path, shape) for path in paths) / sum(shares)
    return Means(
        ttft_s=ttft_s,
        itl_s=_itl_s([path.gaps for path in paths], shape),
        output_tokens_per_s=_output_tokens_per_s(loaded, shape),
    )


def _ttft_s(path: Path, shape: Shape) -> float:
    """A path's part of the mean: the sum over its requests, as a share of all."""
    first, second = path.prompt_wait, path.slot_wait
    backlog_s = max(first.backlog_s, second.backlog_s)
    waiting_s = (
        first.probability * first.mean_s + second.probability * second.mean_s + backlog_s / 2
    )
    return float((shape.weight * path.share) @ (path.fixed_s + waiting_s))


def _itl_s(gaps: Sequence[Gaps], shape: Shape) -> float | None:
    if float(shape.weight @ (shape.output_tokens > 1)) <= 0:
        return None
    tokens_per_s = sum(one.tokens_per_s for one in gaps)
    if tokens_per_s <= 0:
        return None
    spent = sum(
        one.tokens_per_s * float(one.step_s @ one.step_weight + one.chunk_s @ one.chunk_weight)
        for one in gaps
    )
    return spent / tokens_per_s


def _output_tokens_per_s(loaded: Sequence[LoadedPool], shape: Shape) -> float:
    """Tokens of the requests that each pool can do; decode gets no more than prefill lets by."""
    done: dict[Role, float] = {}
    tokens: dict[Role, float] = {}
    for pool in loaded:
        role, rate = pool.load.role, pool.traffic.rate_rps
        arriving = shape.weight * pool.share
        able = min(rate, pool.leg.saturation_rps)
        done[role] = done.get(role, 0.0) + able
        each = float(arriving @ shape.output_tokens) / max(float(arriving.sum()), 1e-300)
        tokens[role] = tokens.get(role, 0.0) + able * each
    through = done.get(Role.PREFILL, 0.0) / max(done.get(Role.DECODE, 0.0), 1e-300)
    return tokens.get(Role.DECODE, 0.0) * min(through, 1.0) + tokens.get(Role.AGGREGATED, 0.0)
