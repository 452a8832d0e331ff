"""Did it help? Sentences from the measured windows, whatever they say."""

from planner.domain.plan import PlanWindow, Prediction
from planner.domain.rollout import Diff
from planner.domain.slo import Slo
from planner.domain.wording import counted
from planner.service.demo.outcome import MeasuredWindow

NOISE_RATIO = 0.02
"""Attainments closer than this are called equal: a few requests of a short window."""
LATE_S = 0.25


def judge(
    before: MeasuredWindow,
    after: MeasuredWindow,
    *,
    diff: Diff,
    planned: PlanWindow | None,
    hindcast: Prediction,
    slo: Slo,
    quota_is_enforced: bool,
) -> tuple[str, ...]:
    """Say whether attainment rose, and why if it did not."""
    was, now = before.latency.attainment_ratio, after.latency.attainment_ratio
    if was is None or now is None:
        return ("too little traffic to compare: a window held no request",)
    first = f"attainment went from {was:.1%} to {now:.1%} (promised {slo.attainment_ratio:.0%})"
    if now > was + NOISE_RATIO:
        return (first,)
    if not diff.steps and now >= slo.attainment_ratio:
        return (first, "the fleet was left alone, because it already kept the promise")
    reasons = _reasons(before, after, planned, hindcast, slo)
    if not quota_is_enforced:
        reasons.append(
            "workers share the processor without a limit on this machine, so they slow each other"
        )
    return (first, *(reasons or ["no cause stands out in what was measured"]))


def _reasons(
    before: MeasuredWindow,
    after: MeasuredWindow,
    planned: PlanWindow | None,
    hindcast: Prediction,
    slo: Slo,
) -> list[str]:
    was, now = before.latency.attainment_ratio, after.latency.attainment_ratio
    reasons = []
    if was is not None and was >= slo.attainment_ratio:
        reasons.append("there was little to gain: the promise was kept before")
    rate_before = before.replay.workload.request_rate_rps
    rate_after = after.replay.workload.request_rate_rps
    if rate_before > 0 and rate_after > 1.15 * rate_before:
        reasons.append(
            f"the window after carried more traffic ({rate_before:.2f} to {rate_after:.2f} "
            "requests/s)"
        )
    if planned is not None and rate_after > 1.1 * planned.request_rate_rps:
        reasons.append(
            f"more came than was planned for ({rate_after:.2f} against "
            f"{planned.request_rate_rps:.2f} requests/s)"
        )
    expected = hindcast.attainment_ratio
    if expected is not None and now is not None and now < expected - 0.1:
        reasons.append(
            f"the twin expected {expected:.1%} under the traffic that came: this machine was "
            "slower than when it was profiled"
        )
    failures = len(after.replay.failures)
    if failures:
        reasons.append(
            f"{counted(failures, 'request')} failed, the first: {after.replay.failures[0]}"
        )
    if after.replay.late_s > LATE_S:
        reasons.append(
            f"the load client itself fell {after.replay.late_s:.2f} s behind: the processor was "
            "busy with other things"
        )
    return reasons
