"""A small deployment in files: spec, profile, trace, history, fleet."""

import copy
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from profiler.files import write_profile
from tests.fakes.profiles import linear_profile

NOON = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
"""When the example history ends."""

CONFIG = {
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 1536,
    "vocab_size": 8192,
    "max_position_embeddings": 32768,
    "torch_dtype": "bfloat16",
}

SPEC = {
    "apiVersion": "poolwise/v1",
    "name": "shop",
    "models": [{"name": "tiny", "config": CONFIG}],
    "slos": [{"model": "tiny", "ttft_s": 0.5, "tpot_s": 0.05, "attainment_ratio": 0.9}],
    "accelerators": [
        {"name": "cpu", "per_node": 8, "inventory": 16, "usd_per_gpu_hour": {"on_demand": 1.0}}
    ],
    "profiles": ["tiny.json"],
    "pools": [
        {"model": "tiny", "role": "prefill", "accelerator": "cpu"},
        {"model": "tiny", "role": "decode", "accelerator": "cpu"},
    ],
    "forecast": {"window_s": 60.0, "horizon_windows": 2},
    "loop": {"solver_time_limit_s": 5.0},
}


def spec_data(**changes):
    """The example spec as data, with top-level sections replaced; None takes one away."""
    data = copy.deepcopy(SPEC)
    data.update(changes)
    return {key: value for key, value in data.items() if value is not None}


def write_spec(folder: Path, **changes) -> Path:
    """The example spec with its profile in a folder."""
    write_profile(linear_profile(), folder / "tiny.json")
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec_data(**changes), sort_keys=False))
    return path


def window(index: int, *, requests: int = 120, isl: int = 800, osl: int = 60, **more):
    """One observed window of a minute; the last one, index -1, ends at NOON."""
    start_at = NOON + timedelta(minutes=index)
    return {
        "start_at": start_at.isoformat(),
        "window_s": 60.0,
        "requests": requests,
        "input_tokens": requests * isl,
        "output_tokens": requests * osl,
        "cached_tokens": 0,
        **more,
    }


def history(minutes: int = 20, **load):
    """Windows of a steady load that end at NOON."""
    return [window(index, **load) for index in range(-minutes, 0)]


def pool(role: str, ready: int, **more):
    """One pool of the example fleet."""
    return {"model": "tiny", "role": role, "accelerator": "cpu", "tp": 1, "ready": ready, **more}


def fleet(prefill: int = 1, decode: int = 1):
    """The example fleet."""
    return {"pools": [pool("prefill", prefill), pool("decode", decode)]}


def write_trace(path: Path, *, minutes: float = 10, rate_rps: float = 2.0) -> Path:
    """A steady trace in Mooncake's format."""
    count = int(minutes * 60 * rate_rps)
    rows = [
        {
            "timestamp": int(1000 * i / rate_rps),
            "input_length": 600 + 40 * (i % 11),
            "output_length": 40 + 5 * (i % 7),
            "hash_ids": [3 * i, 3 * i + 1],
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_json(path: Path, data: object) -> Path:
    """Data as a JSON file."""
    path.write_text(json.dumps(data))
    return path
