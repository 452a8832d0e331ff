"""A worker's `/metrics` as vLLM writes it, from the load it served: for tests of what reads it."""

from contextlib import contextmanager
from dataclasses import dataclass

from tests.fakes.pages import answering

LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
LATENCIES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True, kw_only=True)
class Served:
    """Totals of one worker."""

    requests: int = 0
    isl: int = 300
    osl: int = 50
    itl_s: float = 0.012
    prefill_s: float = 0.035
    running: int = 4
    started_at_s: float = 1000.0
    computed: float = 1.0


def _histogram(name, count, total, value, upper):
    labels = 'engine="0",model_name="tiny"'
    lines = [f"# TYPE {name} histogram"]
    for end in (*upper, float("inf")):
        text = "+Inf" if end == float("inf") else f"{float(end)}"
        seen = count if value <= end else 0
        lines.append(f'{name}_bucket{{{labels},le="{text}"}} {float(seen)}')
    return [*lines, f"{name}_count{{{labels}}} {float(count)}", f"{name}_sum{{{labels}}} {total}"]


def page(served: Served, itl_name="vllm:inter_token_latency_seconds") -> str:
    """The text of `/metrics`."""
    n, labels = served.requests, 'engine="0",model_name="tiny"'
    gaps = n * (served.osl - 1)
    lines = [
        "# TYPE process_start_time_seconds gauge",
        f"process_start_time_seconds {served.started_at_s}",
        "# TYPE vllm:num_requests_running gauge",
        f"vllm:num_requests_running{{{labels}}} {float(served.running)}",
        "# TYPE vllm:num_requests_waiting gauge",
        f"vllm:num_requests_waiting{{{labels}}} 0.0",
        "# TYPE vllm:prompt_tokens counter",
        f"vllm:prompt_tokens_total{{{labels}}} {float(n * served.isl)}",
        "# TYPE vllm:prompt_tokens_by_source counter",
        f'vllm:prompt_tokens_by_source_total{{{labels},source="local_compute"}} '
        f"{n * served.isl * served.computed}",
        "# TYPE vllm:generation_tokens counter",
        f"vllm:generation_tokens_total{{{labels}}} {float(n * served.osl)}",
        "# TYPE vllm:request_success counter",
        f'vllm:request_success_total{{{labels},finished_reason="length"}} {float(n)}',
    ]
    for name, count, value, upper in (
        ("vllm:time_to_first_token_seconds", n, served.prefill_s + 0.002, LATENCIES),
        (itl_name, gaps, served.itl_s, LATENCIES),
        ("vllm:request_prefill_time_seconds", n, served.prefill_s, LATENCIES),
        ("vllm:request_prompt_tokens", n, served.isl, LENGTHS),
    ):
        lines += _histogram(name, count, count * value, value, upper)
    return "\n".join(lines) + "\n"


@contextmanager
def served_pages(pages):
    """A real HTTP server on loopback: one page after the other, the last again and again.

    A page is a text, or a number: the status of an answer without one.
    """
    left = list(pages)

    def answer(asked):
        page = left.pop(0) if len(left) > 1 else left[0]
        if asked.path != "/metrics":
            page = 404
        return (page, "") if isinstance(page, int) else page

    with answering(answer) as url:
        yield url
