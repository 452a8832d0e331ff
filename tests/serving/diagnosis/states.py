"""Deployments in a known state, as their metrics would tell it."""

from serving.diagnosis.watched import Look, Watch, WatchedWorker, Yardsticks
from serving.telemetry.histogram import Histogram
from serving.telemetry.interval import latency_of
from serving.telemetry.signals import (
    Activity,
    Signal,
    Source,
    TargetKind,
    TargetSignals,
    TargetState,
    TransferSignals,
)

SECONDS = 20.0
BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, float("inf"))


def times(*values):
    """A latency of so many values (seconds)."""
    cumulative = {end: float(sum(v <= end for v in values)) for end in BUCKETS}
    histogram = Histogram.of(cumulative, count=float(len(values)), total=float(sum(values)))
    return latency_of(histogram, metric="m")


def look(running=1.0, waiting=0.0, waiting_for_kv=0.0, usage=0.1):
    return Look(
        running=running, waiting=waiting, waiting_for_kv=waiting_for_kv, kv_usage_ratio=usage
    )


def worker(role, looks, *, name=None, state=TargetState.UP, transfer=None, latencies=None, **rates):
    """A worker with these moments; `rates` are plain signals of its activity."""
    told = {"requests_per_s": 1.0, "kv_capacity_tokens": 100_000, "isl": 500, "osl": 50, **rates}
    activity = Activity(
        **{k: Signal(value=float(v)) for k, v in told.items()},
        **(latencies or {}),
        transfer=transfer or TransferSignals(),
    )
    return WatchedWorker(
        role=role,
        signals=TargetSignals(
            name=name or f"{role}-1",
            url="http://w",
            kind=TargetKind.ENGINE,
            source=Source.VLLM,
            role=role,
            state=state,
            activity=activity,
        ),
        looks=tuple(looks),
    )


def moved(seconds, *, per_s=1.0, bytes_each=2e6, **more):
    """Transfers at a decode worker: the times of those that were seen."""
    signals = {"transfers_per_s": per_s, "bytes_per_s": per_s * bytes_each, **more}
    return TransferSignals(
        latency=times(*seconds), **{k: Signal(value=float(v)) for k, v in signals.items()}
    )


def front(ttft_s):
    """A router that saw first tokens after so long."""
    return TargetSignals(
        name="router",
        url="http://r",
        kind=TargetKind.ROUTER,
        source=Source.SMG,
        state=TargetState.UP,
        activity=Activity(ttft=times(*[ttft_s] * 20)),
    )


def watch(*workers, front=None, **yardsticks):
    return Watch(seconds=SECONDS, workers=workers, front=front, yardsticks=Yardsticks(**yardsticks))
