"""A stub vLLM worker on loopback whose counters grow with time, as under a steady load."""

import time
from contextlib import contextmanager
from dataclasses import dataclass

from tests.fakes.pages import answering

ENDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class LoadedWorker:
    """What it does all the time."""

    rate_rps: float = 10.0
    running: float = 1.0
    waiting: float = 0.0
    usage: float = 0.1
    queue_s: float = 0.002
    prefill_s: float = 0.05
    itl_s: float = 0.02
    isl: int = 200
    osl: int = 20
    transfer_s: float = 0.01
    kv_fetch: tuple[tuple[str, float], ...] = ()

    def page(self, seconds: float) -> str:
        """Its metrics after so long."""
        n = int(self.rate_rps * seconds)
        lines = ["process_start_time_seconds 1000.0"]
        for name, value in (
            ("vllm:num_requests_running", self.running),
            ("vllm:num_requests_waiting", self.waiting),
            ("vllm:kv_cache_usage_perc", self.usage),
            ("vllm:num_preemptions_total", 0),
            ("vllm:prompt_tokens_total", n * self.isl),
            ("vllm:generation_tokens_total", n * self.osl),
            ("vllm:nixl_bytes_transferred_sum", n * self.isl * 4096),
        ):
            lines.append(f'{name}{{engine="0",model_name="tiny"}} {float(value)}')
        lines.append('vllm:cache_config_info{block_size="16",num_gpu_blocks="1000"} 1.0')
        lines.append(f'vllm:request_success_total{{finished_reason="length"}} {n}')
        for stage, count in self.kv_fetch:
            lines.append(f'vllm:num_requests_kv_fetch_by_stage{{stage="{stage}"}} {count}')
        for source, share in (("local_compute", 0.7), ("local_cache_hit", 0.3)):
            lines.append(
                f'vllm:prompt_tokens_by_source_total{{source="{source}"}} {n * self.isl * share}'
            )
        for name, count, value in (
            ("vllm:request_queue_time_seconds", n, self.queue_s),
            ("vllm:request_prefill_time_seconds", n, self.prefill_s),
            ("vllm:time_to_first_token_seconds", n, self.queue_s + self.prefill_s),
            ("vllm:inter_token_latency_seconds", n * self.osl, self.itl_s),
            ("vllm:nixl_xfer_time_seconds", n, self.transfer_s),
        ):
            lines += _histogram(name, count, value, ENDS)
        lines += _histogram("vllm:request_prompt_tokens", n, self.isl, (100, 1000))
        lines += _histogram("vllm:request_generation_tokens", n, self.osl, (10, 100))
        return "\n".join(lines) + "\n"


def _histogram(name, count, value, ends):
    lines = [f'{name}_bucket{{le="{e}"}} {count if value <= e else 0}' for e in ends]
    lines.append(f'{name}_bucket{{le="+Inf"}} {count}')
    return [*lines, f"{name}_count {count}", f"{name}_sum {count * value}"]


@contextmanager
def running(worker):
    """Serve its page; yields its URL."""
    began = time.monotonic() - 100.0
    with answering(lambda _asked: worker.page(time.monotonic() - began)) as url:
        yield url
