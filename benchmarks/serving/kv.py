"""Whether the KV view tells the truth, and what an event costs.

Real engines (two prefill workers and a decode worker of half a core each, behind smg, a cache of
`BLOCKS` blocks at prefill) serve conversations that share prefixes, while the view listens. Beside
it stands what the engines say themselves: their hit counters, and what the prompts that were sent
come to block by block.
"""

import gc
import json
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.profiling.engines import MODEL, engines
from planner.domain.fleet import ReplicaShape, Role
from serving.kv.cache import WorkerCache
from serving.kv.events import EventAddress, decode, events_address, events_config
from serving.kv.policy import recommend_policies
from serving.kv.reuse import Reuse
from serving.kv.subscriber import EventFeed, catch_up, pump
from serving.kv.view import KvSnapshot, KvView
from serving.telemetry.signals import TargetKind, TargetSignals
from serving.telemetry.targets import Look, Target, look, metrics_page, signals_of
from serving.traffic.load import Completion, LoadClient
from serving.traffic.prompts import PromptWriter
from serving.workers.launcher import Worker
from serving.workers.processes import free_ports

BLOCK, BLOCKS = 128, 60
DOCUMENTS, ROUNDS = 6, 5
PREFIX_TOKENS, PROMPT_TOKENS, ANSWER_TOKENS = 512, 700, 4
EVENTS = 200_000
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The view at the end, the engines' own counters, and what was sent."""

    snapshot: KvSnapshot
    signals: dict[str, TargetSignals]
    asked_tokens: int
    distinct_blocks: int
    shared_blocks: int
    failed: int
    unreadable: int


def run(folder: Path, say: Say) -> str:
    """Both parts; Markdown."""
    return "\n\n".join([_truth(folder, say), _cost(say)])


def _truth(folder: Path, say: Say) -> str:
    with engines((Role.DECODE,), folder, say) as now:
        ports = free_ports(4)
        shapes = [
            ReplicaShape(
                role=Role.PREFILL,
                model=MODEL,
                accelerator="cpu-slot",
                engine_flags=(
                    "--num-gpu-blocks-override",
                    str(BLOCKS),
                    "--kv-events-config",
                    events_config(ports[2 * i], ports[2 * i + 1]),
                ),
            )
            for i in range(2)
        ]
        workers = [now.deployment.start(shape) for shape in shapes]
        for worker in workers:
            now.deployment.await_ready(worker)
            now.deployment.route(worker)
        now.deployment.route(now.workers[0])
        addresses = {
            w.name: EventAddress.parse(events_address(ports[2 * i], ports[2 * i + 1]))
            for i, w in enumerate(workers)
        }
        say("two prefill workers and one decode worker are ready")
        client = LoadClient(url=now.deployment.router.url, model=MODEL, timeout_s=120.0)
        seen = _watched(workers, addresses, client, now.writer(), say)
    (folder / "kv.json").write_text(json.dumps(_figures(seen), indent=2))
    return _truth_table(seen)


def _watched(
    workers: Sequence[Worker],
    addresses: dict[str, EventAddress],
    client: LoadClient,
    writer: PromptWriter,
    say: Say,
) -> Seen:
    import asyncio

    targets = [
        Target(
            name=w.name,
            url=w.url,
            metrics_url=metrics_page(w.url),
            kind=TargetKind.ENGINE,
            role=w.shape.role,
        )
        for w in workers
    ]
    view = KvView(roles={w.name: w.shape.role for w in workers})
    failed = 0

    async def send() -> None:
        nonlocal failed
        number = 0
        for _round in range(ROUNDS):
            for document in range(DOCUMENTS):
                prompt = writer.with_prefix(
                    PREFIX_TOKENS, PROMPT_TOKENS, prefix=document, number=number
                )
                answer = await client.send(Completion(prompt=prompt, output_tokens=ANSWER_TOKENS))
                failed += bool(answer.error)
                number += 1
                await asyncio.to_thread(pump, feed, view, 0.01)
        await client.close()

    with EventFeed(addresses) as feed:
        before = look(targets, deadline_s=5.0)
        view.observe(_signals([None] * len(before), before))
        catch_up(feed, view)
        view.snapshot({}, seconds=1.0)
        began = time.monotonic()
        asyncio.run(send())
        time.sleep(1.0)
        pump(feed, view, 0.5)
        catch_up(feed, view)
        after = look(targets, deadline_s=5.0)
        seconds = time.monotonic() - began
        signals = _signals(before, after)
        snapshot = view.snapshot(signals, seconds=seconds)
    requests = ROUNDS * DOCUMENTS
    say(f"{requests} requests in {seconds:.0f} s, {failed} failed")
    return Seen(
        snapshot=snapshot,
        signals=signals,
        asked_tokens=requests * PROMPT_TOKENS,
        distinct_blocks=(
            DOCUMENTS * (PREFIX_TOKENS // BLOCK)
            + requests * (PROMPT_TOKENS // BLOCK - PREFIX_TOKENS // BLOCK)
        ),
        shared_blocks=(ROUNDS - 1) * DOCUMENTS * (PREFIX_TOKENS // BLOCK),
        failed=failed,
        unreadable=feed.unreadable,
    )


def _signals(before: Sequence[Look | None], after: Sequence[Look]) -> dict[str, TargetSignals]:
    return {b.target.name: signals_of(a, b) for a, b in zip(before, after, strict=True)}


def _figures(seen: Seen) -> dict[str, float]:
    snapshot = seen.snapshot
    stored = sum(w.stored_per_s for w in snapshot.workers) * snapshot.seconds
    evicted = sum(w.evicted_per_s for w in snapshot.workers) * snapshot.seconds
    computed = sum(
        (s.activity.computed_tokens_per_s.value or 0.0) * (s.interval_s or 0.0)
        for s in seen.signals.values()
    )
    cached = sum(
        (s.activity.cached_tokens_per_s.value or 0.0) * (s.interval_s or 0.0)
        for s in seen.signals.values()
    )
    reuse = snapshot.reuse_so_far
    return {
        "stored_blocks": stored,
        "evicted_blocks": evicted,
        "held_tokens": float(sum(w.held_tokens for w in snapshot.workers)),
        "held_blocks": float(sum(h.blocks for w in snapshot.workers for h in w.held)),
        "engine_computed_tokens": computed,
        "engine_cached_tokens": cached,
        "view_reuse_ratio": snapshot.prefix_reuse_ratio or 0.0,
        "referenced_blocks": 0.0 if reuse is None else float(reuse.blocks),
        "infinite_ratio": 0.0 if reuse is None else reuse.infinite_ratio,
        "cache_aware_ratio": 0.0 if reuse is None else reuse.cache_aware_ratio,
        "blind_ratio": 0.0 if reuse is None else reuse.blind_ratio,
        "missing_batches": float(sum(w.missing_batches for w in snapshot.workers)),
    }


def _truth_table(seen: Seen) -> str:
    f = _figures(seen)
    requests = ROUNDS * DOCUMENTS
    whole_blocks = requests * (PROMPT_TOKENS // BLOCK)
    sent_again = seen.shared_blocks / whole_blocks
    hit_blocks = f["engine_cached_tokens"] / BLOCK
    rows = [
        (
            "blocks stored",
            f"{f['stored_blocks']:.0f}",
            f"{whole_blocks - hit_blocks:.0f}",
            "whole blocks sent less those that the engines' hit counters say they found",
        ),
        (
            "blocks held at the end",
            f"{f['held_blocks']:.0f}",
            f"{f['stored_blocks'] - f['evicted_blocks']:.0f}; at most {2 * (BLOCKS - 1)}",
            "stored less evicted; the engines' capacity (one block is reserved each)",
        ),
        (
            "prompt tokens found in the cache",
            f"{f['view_reuse_ratio']:.1%}",
            f"{f['engine_cached_tokens'] / seen.asked_tokens:.1%}",
            "the engines' counters over the tokens sent",
        ),
        (
            "blocks referenced",
            f"{f['referenced_blocks']:.0f}",
            f"{whole_blocks}",
            "whole blocks of the prompts sent",
        ),
        (
            "found in a cache without bounds",
            f"{f['infinite_ratio']:.1%}",
            f"{sent_again:.1%}",
            "blocks sent before, by construction",
        ),
    ]
    advice = recommend_policies(seen.snapshot)
    lines = [
        f"{requests} requests of {PROMPT_TOKENS} tokens over {DOCUMENTS} shared prefixes of "
        f"{PREFIX_TOKENS}, two prefill workers of {BLOCKS} blocks; {seen.failed} failed, "
        f"{f['missing_batches']:.0f} messages missing, {seen.unreadable} unreadable.",
        "",
        "| | the view | the truth | which is |",
        "|---|---:|---:|---|",
        *(f"| {a} | {b} | {c} | {d} |" for a, b, c, d in rows),
        "",
        f"In caches of this size: {f['cache_aware_ratio']:.1%} routed by cache, "
        f"{f['blind_ratio']:.1%} blindly. Recommended: "
        + "; ".join(f"`{a.option}` ({a.reasons[0]})" for a in advice),
    ]
    return "\n".join(lines)


def _cost(say: Say) -> str:
    """Events of one core, and bytes of a block: no sockets, one event a message as vLLM sends."""
    encode = msgspec.msgpack.encode
    hashes = [(i * 0x9E3779B97F4A7C15) % 2**64 for i in range(EVENTS)]
    messages = [
        encode(
            [
                float(i),
                [
                    {
                        "type": "BlockStored",
                        "block_hashes": [h],
                        "parent_block_hash": hashes[i - 1] if i % 8 else None,
                        "token_ids": list(range(16)),
                        "block_size": 16,
                        "lora_id": None,
                        "medium": "GPU",
                        "lora_name": None,
                    }
                ],
                0,
            ]
        )
        for i, h in enumerate(hashes)
    ]
    rates = {}
    began = time.process_time()
    for message in messages:
        msgspec.msgpack.decode(message)
    rates["msgspec alone, whole message"] = EVENTS / (time.process_time() - began)
    began = time.process_time()
    batches = [decode(message) for message in messages]
    rates["decoded"] = EVENTS / (time.process_time() - began)
    cache = WorkerCache()
    began = time.process_time()
    for batch in batches:
        cache.apply(batch)
    rates["kept in one cache's picture"] = EVENTS / (time.process_time() - began)
    reuse = Reuse(capacities={f"w{i}": 50_000 for i in range(4)})
    began = time.process_time()
    for batch in batches:
        reuse.apply(batch)
    rates["followed in the ghosts"] = EVENTS / (time.process_time() - began)
    whole = 1 / sum(1 / rates[name] for name in list(rates)[1:])
    say(f"{whole:,.0f} events/s of one core in all")
    held, ghosts = _bytes_per_block()
    return "\n".join(
        [
            f"{EVENTS:,} events of one block, processor time of one core:",
            "",
            "| step | events/s |",
            "|---|---:|",
            *(f"| {name} | {rate:,.0f} |" for name, rate in rates.items()),
            f"| all of ours together | {whole:,.0f} |",
            "",
            f"Memory: {held:.0f} bytes a block held, {ghosts:.0f} bytes a block tracked in the "
            "ghosts (four workers, with parents).",
        ]
    )


def _bytes_per_block() -> tuple[float, float]:
    count = 40_000
    payloads = [
        msgspec.msgpack.encode(
            [
                float(i),
                [
                    {
                        "type": "BlockStored",
                        "block_hashes": [(i * 0x9E3779B97F4A7C15 + 7) % 2**64],
                        "parent_block_hash": None,
                        "block_size": 16,
                        "medium": "GPU",
                    }
                ],
            ]
        )
        for i in range(count)
    ]
    found = []
    for made in (WorkerCache(), Reuse(capacities={f"w{i}": 50_000 for i in range(4)})):
        gc.collect()
        tracemalloc.start()
        for payload in payloads:
            made.apply(decode(payload))
        gc.collect()
        found.append(tracemalloc.get_traced_memory()[0] / count)
        tracemalloc.stop()
    return found[0], found[1]
