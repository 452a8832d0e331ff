"""Files in the formats of other programs, of our own making.

An engine whose times are formulas: a prompt takes `prompt_s`, a decode step `step_s`.
"""

import json

import numpy as np


def prompt_s(tokens):
    return 0.010 + 1e-4 * tokens


def step_s(sequences, context=0.0):
    return 0.010 + 2e-4 * sequences + 1e-7 * sequences * context


def vllm_result(
    *, concurrency=1, input_tokens=1000, output_tokens=101, tpot_s=None, ttft_s=None, **changes
):
    """What `vllm bench serve --save-result` writes, without the fields that nobody reads."""
    tpot_s = step_s(concurrency) if tpot_s is None else tpot_s
    ttft_s = prompt_s(input_tokens) * max(1, concurrency / 4) if ttft_s is None else ttft_s
    requests = 20 * concurrency
    # All of them decode all the time: Little's law gives `concurrency` decoding.
    rate = concurrency / ((output_tokens - 1) * tpot_s) if output_tokens > 1 else 1.0
    result = {
        "date": "20261101-120000",
        "endpoint_type": "vllm",
        "backend": "vllm",
        "label": None,
        "model_id": "tiny",
        "tokenizer_id": "tiny",
        "num_prompts": requests,
        "request_rate": "inf",
        "burstiness": 1.0,
        "max_concurrency": concurrency,
        "duration": requests / rate,
        "completed": requests,
        "failed": 0,
        "total_input_tokens": requests * input_tokens,
        "total_output_tokens": requests * output_tokens,
        "request_throughput": rate,
        "request_goodput": None,
        "output_throughput": rate * output_tokens,
        "total_token_throughput": rate * (input_tokens + output_tokens),
        "mean_ttft_ms": ttft_s * 1e3 * 1.1,
        "median_ttft_ms": ttft_s * 1e3,
        "p99_ttft_ms": ttft_s * 1e3 * 2,
        "mean_tpot_ms": tpot_s * 1e3,
        "median_tpot_ms": tpot_s * 1e3,
        "p99_tpot_ms": tpot_s * 1e3,
        "mean_itl_ms": tpot_s * 1e3,
        "median_itl_ms": tpot_s * 1e3,
        "p99_itl_ms": tpot_s * 1e3,
    }
    return result | changes


def guidellm_benchmark(*, streams=1, input_tokens=1000, output_tokens=101, **changes):
    """One entry of `benchmarks` in a report of guidellm 0.8."""
    tpot_s = step_s(streams)
    rate = streams / ((output_tokens - 1) * tpot_s)
    strategy = {"type_": "concurrent", "streams": streams}
    if streams == 1:
        strategy = {"type_": "synchronous"}
    benchmark = {
        "type_": "generative_benchmark",
        "config": {
            "strategy": strategy,
            "backend": {"kind": "openai_http", "target": "http://h:8000", "model": "tiny"},
        },
        "metrics": {
            "request_totals": {"successful": 40, "errored": 0, "incomplete": 0, "total": 40},
            "requests_per_second": by_status(rate),
            "request_concurrency": by_status(streams),
            "request_latency": by_status(0.1),
            "prompt_token_count": by_status(input_tokens),
            "output_token_count": by_status(output_tokens),
            "time_to_first_token_ms": by_status(prompt_s(input_tokens) * 1e3),
            "inter_token_latency_ms": by_status(tpot_s * 1e3),
        },
        "start_time": 1793534400.0,
        "end_time": 1793534460.0,
    }
    return benchmark | changes


def by_status(value):
    """A distribution by status in which every request is alike."""
    distribution = {"mean": value, "median": value, "std_dev": 0.0, "count": 40}
    return {"successful": distribution, "errored": None, "incomplete": None, "total": distribution}


def guidellm_report(*benchmarks, version=2):
    return {
        "metadata": {"version": version, "guidellm_version": "0.8.1"},
        "config": {},
        "benchmarks": list(benchmarks),
        "conclusions": [],
    }


def aiperf_summary(*, concurrency=1, input_tokens=1000, output_tokens=101, **changes):
    """What AIPerf 0.13 writes as profile_export_aiperf.json."""
    tpot_s = step_s(concurrency)
    rate = concurrency / ((output_tokens - 1) * tpot_s)
    summary = {
        "schema_version": "1.4",
        "aiperf_version": "0.13.0",
        "request_throughput": {"unit": "requests/sec", "avg": rate},
        "request_count": {"unit": "requests", "avg": 40.0},
        "time_to_first_token": metric("ms", prompt_s(input_tokens) * 1e3),
        "inter_token_latency": metric("ms", tpot_s * 1e3),
        "input_sequence_length": metric("tokens", input_tokens),
        "output_sequence_length": metric("tokens", output_tokens),
        "input_config": {
            "models": {"items": [{"name": "tiny"}]},
            "phases": [
                {"name": "warmup", "kind": "warmup", "type": "concurrency", "concurrency": 7},
                {
                    "name": "profiling",
                    "kind": "profiling",
                    "type": "concurrency",
                    "concurrency": concurrency,
                },
            ],
        },
        "was_cancelled": False,
        "is_complete": True,
        "start_time": "2026-11-01T12:00:00.5",
        "end_time": "2026-11-01T12:01:00.5",
    }
    return summary | changes


def metric(unit, value):
    return {"unit": unit, "avg": value, "p50": value, "p99": value, "min": value, "max": value}


ISL = np.array([100.0, 1000.0, 2000.0])
DECODE = [(b, c) for c in (350.0, 1350.0) for b in (1, 4, 16, 48) if b * c <= 24_000]
KV_TOKENS = 24_000


def dynamo_arrays(*, gpus=2):
    """Arrays of Dynamo's profiler by file; times as above."""
    ttft = np.array([prompt_s(n) for n in ISL]) * 1e3
    batch = np.array([float(b) for b, _ in DECODE])
    context = np.array([c for _, c in DECODE])
    itl = np.array([step_s(b, c) for b, c in DECODE]) * 1e3
    return (
        {
            "prefill_isl": ISL,
            "prefill_ttft": ttft,
            "prefill_thpt_per_gpu": ISL / ttft / gpus * 1000,
        },
        {
            "x_kv_usage": batch * context / KV_TOKENS,
            "y_context_length": context,
            "z_itl": itl,
            "z_thpt_per_gpu": batch / itl * 1000 / gpus,
            "max_kv_tokens": np.array([KV_TOKENS]),
        },
    )


def write_dynamo(folder, *, gpus=2, prefill=(), decode=()):
    """A folder as Dynamo's profiler leaves it, some arrays replaced."""
    first, second = dynamo_arrays(gpus=gpus)
    for name, arrays in (
        ("selected_prefill_interpolation", first | dict(prefill)),
        ("selected_decode_interpolation", second | dict(decode)),
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
        np.savez(folder / name / "raw_data.npz", **arrays)
    return folder


SPLITWISE_COLUMNS = (
    "model,hardware,prompt_size,batch_size,token_size,peak_power,average_power,prompt_time,"
    "token_time,e2e_time,tensor_parallel"
)


def splitwise_row(
    prompt=512, batch=1, token=128, *, hardware="a100-80gb", tp=8, prompt_ms=None, token_ms=None
):
    prompt_ms = prompt_s(prompt * batch) * 1e3 if prompt_ms is None else prompt_ms
    token_ms = step_s(batch) * 1e3 if token_ms is None else token_ms
    return f"llama2-70b,{hardware},{prompt},{batch},{token},1.0,0.7,{prompt_ms},{token_ms},1,{tp}"


def write_splitwise(path, *rows):
    path.write_text("\n".join([SPLITWISE_COLUMNS, *rows]) + "\n")
    return path


DISTSERVE = {
    "facebook/opt-13b": {
        "2": {
            "decoding_large_small_bs_threshold": 95,
            "prefill": [15.0, 0.07, 2.5e-06],
            "decoding_smallbs": [13.0, 0.0003, 0.06],
            "decoding_largebs": [10.0, 0.0003, 0.1],
        }
    }
}
DISTSERVE_KV = (
    "model,tp,pp,max_num_tokens\nfacebook/opt-13b,2,1,160000\nfacebook/opt-13b,2,2,350000\n"
)


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path
