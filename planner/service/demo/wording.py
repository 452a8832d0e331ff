"""What the demo says, in words with units."""

from collections.abc import Callable

from planner.domain.plan import Prediction
from planner.domain.profile import Profile
from planner.domain.wording import counted
from planner.domain.workload import Workload
from planner.service.demo.outcome import MeasuredWindow
from serving.fleet.deployment import LocalDeployment
from serving.traffic.background import BackgroundReplay


def answering(
    at: Callable[[float, str], None], workload: Workload
) -> Callable[[BackgroundReplay], None]:
    """Show how many requests of a window have their answer."""
    count = max(len(workload), 1)
    return lambda running: at(
        running.answered / count, f"{running.sent} sent, {running.answered} of {count} answered"
    )


def measured_text(window: MeasuredWindow) -> str:
    """Say what a window's clients and engines saw."""
    seen, used = window.latency, window.throughput
    if seen.attainment_ratio is None:
        return "no request arrived in this window"
    return (
        f"{counted(len(window.replay.timings), 'request')}: attainment "
        f"{seen.attainment_ratio:.1%}, "
        f"TTFT p50 {_ms(seen.ttft_p50_s)} p95 {_ms(seen.ttft_p95_s)}, "
        f"per token p95 {_ms(seen.tpot_p95_s)}; {used.transferred_tokens:,} prompt tokens came to "
        f"decode by KV transfer, {used.decode_computed_tokens} were computed there"
    )


def predicted_text(prediction: Prediction) -> str:
    """Say what is expected."""
    if prediction.attainment_ratio is None:
        return "no traffic expected"
    return (
        f"attainment {prediction.attainment_ratio:.1%}, TTFT p95 {_ms(prediction.ttft_p95_s)}, "
        f"per token p95 {_ms(prediction.tpot_p95_s)}"
    )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:,.0f} ms"


def quota_text(deployment: LocalDeployment) -> str:
    """Say how workers are held to their share of the processor."""
    share = deployment.site.cores_per_replica
    if deployment.launcher.quota_is_enforced:
        return f"each worker is held to {share:g} cores by the kernel: one slot"
    return (
        "no CPU quota can be set on this machine (it needs a writable cgroup): workers share the "
        "processor, so predictions are less certain"
    )


def provenance_text(profile: Profile) -> str:
    """Say when and on what a profile was measured."""
    source = profile.provenance
    return f"measured at {source.measured_at:%Y-%m-%d %H:%M} UTC on {source.machine}"
