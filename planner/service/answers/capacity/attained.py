"""What the twin sees of the busiest window in sampled futures, with its interval."""

from planner.domain.errors import InputError
from planner.domain.forecast import Forecast
from planner.domain.plan import Plan
from planner.domain.spec import Spec
from planner.service.answers.capacity.scenarios import Effort, strictest_promise
from planner.service.answers.simulation import (
    Sampling,
    Simulated,
    expected_requests,
    replicas_of_plan,
    sample,
)
from planner.service.documents.capacity_report import AttainmentDocument
from planner.service.documents.plan import ClassAttainmentDocument
from planner.simulate.futures import Stopping

FUTURES, QUICK_FUTURES = 20, 8
REQUESTS, QUICK_REQUESTS = 12_000, 3_000
"""Of one future at the most, on average: a longer window is sampled in part."""


def attainment_document(
    spec: Spec, plan: Plan, forecast: Forecast, *, peak: int, quick: bool, effort: Effort
) -> tuple[AttainmentDocument | None, str]:
    """The attainment of the busiest window, or why it is not known."""
    pools = replicas_of_plan(plan, window=peak)
    if not any(pool.replicas for pool in pools):
        return None, "the plan has no replica to replay"
    window = forecast.windows[peak]
    if not window.demands:
        return None, "nothing is expected to arrive"
    most = QUICK_REQUESTS if quick else REQUESTS
    expected = expected_requests(Sampling(window=window, duration_s=window.window_s))
    if expected <= 0:
        return None, "nothing is expected to arrive"
    future_s = window.window_s * min(1.0, most / expected)
    stopping = Stopping(most_futures=QUICK_FUTURES if quick else FUTURES)
    try:
        seen = sample(
            spec,
            pools,
            Sampling(window=window, duration_s=future_s),
            stopping,
            model=plan.model,
        )
    except InputError as error:
        return None, str(error)
    finally:
        effort.step()
    return _document(seen, spec, plan, peak=peak, future_s=future_s), ""


def _document(
    seen: Simulated, spec: Spec, plan: Plan, *, peak: int, future_s: float
) -> AttainmentDocument:
    window, latency = plan.windows[peak], seen.latency
    promise = strictest_promise(spec, plan.model)
    if promise is None:
        raise InputError(f"slos has no promise for {plan.model}: add one under slos")
    return AttainmentDocument(
        start_at=window.start_at,
        window_s=window.window_s,
        future_s=future_s,
        futures=0 if seen.futures is None else seen.futures.count,
        requests=seen.total.requests,
        attainment_ratio=seen.attainment.ratio,
        low_ratio=seen.attainment.low_ratio,
        high_ratio=seen.attainment.high_ratio,
        holds=seen.holds,
        classes=[
            ClassAttainmentDocument(
                request_class=v.request_class,
                target_ratio=v.target_ratio,
                attainment_ratio=v.attainment.ratio or 0.0,
                low_ratio=v.attainment.low_ratio,
                high_ratio=v.attainment.high_ratio,
                requests=v.requests,
            )
            for v in seen.verdicts
            if v.requests
        ],
        ttft_p50_s=latency.ttft_p50_s,
        ttft_p95_s=latency.ttft_p95_s,
        tpot_p95_s=latency.tpot_p95_s,
        ttft_s=promise.ttft_s,
        tpot_s=promise.tpot_s,
        flags=list(seen.flags),
    )
