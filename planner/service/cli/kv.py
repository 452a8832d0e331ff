"""`poolwise kv`: what the workers' KV caches hold, lose and could share."""

from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import EngineError, InputError
from planner.service.cli import output
from planner.service.cli.live_options import EventsOption, WorkersOption
from planner.service.cli.options import JsonOption
from planner.service.live.targets import Asked, targets_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from planner.service.live.kv_watching import KvSource
    from serving.kv.policy import PolicyAdvice
    from serving.kv.view import KvSnapshot, WorkerKv

EPILOG = (
    "Example:\n\npoolwise kv --worker prefill=http://127.0.0.1:8000 "
    "--events tcp://127.0.0.1:5557#5558\n\n"
    "Workers need --kv-events-config. At tcp://HOST:PORT this command listens, one view at a time; "
    "#PORT is the worker's replay port. No prompt text is read."
)
LONGEST_S = 86_400.0


def kv(
    *,
    worker: WorkersOption = None,
    events: EventsOption = None,
    duration: Annotated[
        float, typer.Option("--for", help="Seconds to watch before it says what it saw.")
    ] = 10.0,
    watch: Annotated[
        bool, typer.Option("--watch", help="Say it again after every --for, until interrupted.")
    ] = False,
    kv_bytes: Annotated[
        float | None,
        typer.Option(
            "--kv-bytes-per-token", help="KV bytes of a token, if no transfer tells it.", min=1
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show what each worker caches, its pressure, evictions and hits, and what prompts could share.

    From the workers' KV events and metrics; and which router policy suits that traffic.
    """
    import os

    from planner.service.documents.kv import KvDocument
    from planner.service.live.kv_watching import deployed_source, named_source, watch_kv
    from planner.service.settings import read_settings
    from serving.fleet.endpoints import read_endpoints
    from serving.kv.policy import recommend_policies

    if not 0.5 <= duration <= LONGEST_S:
        raise InputError(f"--for {duration:g}: give seconds from 0.5 to {LONGEST_S:g}")
    given = None
    if worker or events:
        named = targets_of(Asked(workers=worker)) if worker else ()
        given = named_source(named, events or [])
    state_dir = read_settings(os.environ).storage.state_dir

    def now() -> "KvSource":
        return given or deployed_source(read_endpoints(state_dir))

    for snapshot in watch_kv(now, every_s=duration, kv_bytes_per_token=kv_bytes):
        if not any(w.listening or w.usage_ratio is not None for w in snapshot.workers):
            raise EngineError(
                f"in {snapshot.seconds:.0f} s no worker answered, and no KV event came: look at "
                "the addresses, and at `poolwise status`"
            )
        policies = recommend_policies(snapshot)
        if json:
            output.print_json(KvDocument.of(snapshot, policies))
        else:
            _show(snapshot, policies)
        if not watch:
            return


def _show(snapshot: "KvSnapshot", policies: "Sequence[PolicyAdvice]") -> None:
    output.print_table(
        f"KV caches over {snapshot.seconds:.0f} s",
        (
            "",
            "cached",
            "tokens",
            "bytes",
            "in use",
            "waiting",
            "stored/s",
            "evicted/s",
            "wanted again",
            "age at eviction",
        ),
        [_row(w) for w in snapshot.workers],
    )
    if any(w.sources for w in snapshot.workers):
        _show_sources(snapshot)
    _show_reuse(snapshot)
    for advice in policies:
        output.print_lines(f"Router: {advice.option}", list(advice.reasons))
    output.print_lines("Remarks", _remarks(snapshot))


def _show_sources(snapshot: "KvSnapshot") -> None:
    output.print_table(
        "Where prompt tokens came from",
        ("", "tokens/s", "computed", "own cache", "transferred"),
        [
            [
                w.name,
                f"{s.tokens_per_s:,.0f}",
                output.percent(s.computed_ratio),
                output.percent(s.local_ratio),
                output.percent(s.transferred_ratio),
            ]
            for w in snapshot.workers
            if (s := w.sources) is not None
        ],
    )


def _show_reuse(snapshot: "KvSnapshot") -> None:
    reuse = snapshot.reuse_so_far
    if reuse is not None:
        sample = "" if reuse.sample_ratio == 1 else f" (a sample of {reuse.sample_ratio:.0%})"
        output.print_lines(
            f"What prompts could share, from {reuse.blocks:,} blocks{sample}",
            [
                f"{reuse.infinite_ratio:.1%} in a cache without bounds",
                f"{reuse.cache_aware_ratio:.1%} in caches of the present size, routed by cache",
                f"{reuse.blind_ratio:.1%} in caches of the present size, routed blindly",
                f"{reuse.found_ratio:.1%} did lie in their worker's cache",
            ],
        )
    caches = snapshot.prefix_cache
    if caches is not None:
        output.print_lines(
            f"Found in one cache for all workers (they have {caches.cache_tokens:,} tokens)",
            [f"{one.reuse_ratio:.1%} of {one.cache_tokens:,} tokens" for one in caches.reuse],
        )
    if snapshot.prefix_reuse_ratio is not None:
        output.print_lines(
            "Found now", [f"{snapshot.prefix_reuse_ratio:.1%} of prompt tokens (prefix reuse)"]
        )


def _row(worker: "WorkerKv") -> list[str]:
    tokens = worker.held_tokens
    known = worker.listening
    size = worker.kv_bytes_per_token
    return [
        worker.name,
        output.percent(worker.cached_ratio),
        f"{tokens:,}" if known else "-",
        f"{tokens * size / 2**20:,.0f} MiB" if known and size else "-",
        output.percent(worker.usage_ratio),
        "-" if worker.waiting is None else f"{worker.waiting:.0f}",
        f"{worker.stored_per_s:.1f}" if known else "-",
        f"{worker.evicted_per_s:.1f}" if known else "-",
        output.percent(worker.wanted_again_ratio),
        "-" if worker.eviction_age_s is None else f"{worker.eviction_age_s:,.0f} s",
    ]


def _remarks(snapshot: "KvSnapshot") -> list[str]:
    lines = []
    for worker in snapshot.workers:
        if not worker.listening:
            lines.append(f"{worker.name}: no event came; does it send any, and to this address?")
        elif worker.missing_batches:
            lines.append(
                f"{worker.name}: {worker.missing_batches} messages were lost or sent before the "
                "view began, and not replayed: what it holds is not known fully"
            )
        if worker.restarts:
            lines.append(f"{worker.name}: began anew {worker.restarts} times while watched")
        lines += [
            f"{worker.name}: {h.tokens:,} tokens in {h.medium}"
            for h in worker.held
            if len(worker.held) > 1
        ]
    return lines
