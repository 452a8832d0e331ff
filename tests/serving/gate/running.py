"""A gate on a loopback port, in a thread with its own event loop."""

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from serving.gate.app import Gate, GateSettings
from serving.gate.cells import Cells
from serving.gate.exchange import Books
from serving.gate.keys import Keys
from serving.gate.records import RecordWriter, RequestRecord
from serving.gate.server import Serving, serve


@dataclass
class ListSink:
    """A sink that keeps records in a list."""

    records: list[RequestRecord] = field(default_factory=list)

    def add_requests(self, records: Sequence[RequestRecord]) -> None:
        self.records.extend(records)


@dataclass
class RunningGate:
    url: str
    gate: Gate
    sink: ListSink

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextmanager
def running_gate(
    *routers: str,
    settings: GateSettings | None = None,
    cells: Cells | None = None,
    keys: Keys | None = None,
    keys_file: Path | None = None,
    drain_s: float = 5.0,
) -> Iterator[RunningGate]:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    sink = ListSink()
    gate = Gate(
        settings or GateSettings(models=("tiny",), anonymous=True),
        cells or Cells(model="tiny", routers=routers),
        Books(records=RecordWriter(sink)),
        keys or Keys(),
    )
    ready = threading.Event()
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        serving = Serving(listener=listener, keys=keys_file, drain_s=drain_s)
        await serve(gate, serving, ready=ready.set, stop=stop)

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(10)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield RunningGate(url, gate, sink)
    finally:
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(15)
        listener.close()
        assert not thread.is_alive()


def worker_page(*, running: int = 0, waiting: int = 0, kv_usage_ratio: float = 0.1) -> bytes:
    """What an engine says of itself at `/metrics`, as far as the gate looks at it."""
    values = {
        "vllm:num_requests_running": running,
        "vllm:num_requests_waiting": waiting,
        "vllm:kv_cache_usage_perc": kv_usage_ratio,
        'vllm:cache_config_info{block_size="128",num_gpu_blocks="2048"}': 1,
        'vllm:prompt_tokens_by_source_total{source="local_compute"}': 1000,
        "vllm:generation_tokens_total": 100,
        "vllm:nixl_xfer_time_seconds_count": 1,
        "vllm:nixl_xfer_time_seconds_sum": 0.1,
        "vllm:nixl_bytes_transferred_sum": 4096,
        "vllm:nixl_num_failed_transfers_total": 0,
        "vllm:nixl_num_kv_expired_reqs_total": 0,
        "vllm:num_preemptions_total": 0,
        "vllm:request_success_total": 10,
        'vllm:e2e_request_latency_seconds_bucket{le="+Inf"}': 10,
    }
    return "".join(f"{name} {float(value)}\n" for name, value in values.items()).encode()
