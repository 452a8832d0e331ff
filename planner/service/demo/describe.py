"""Write the demo's spec: promises that this machine can keep, slots as accelerators."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.profile import Profile
from planner.domain.workload import Workload
from profiler.files import write_profile

ACCELERATOR = "cpu-slot"
USD_PER_SLOT_HOUR = 0.02
"""Half a core of a general-purpose cloud machine at about 0.04 USD a core-hour; only ratios of
costs matter to the demo."""
ATTAINMENT_RATIO = 0.9
DEMAND_LEVEL = 0.6
"""Forecast quantile to plan for. A minute of history leaves the forecast wide."""
SHORTEST_TTFT_S = 1.0
TTFT_SLACK = 3.0
"""TTFT objective over what an idle deployment needs for the 95th percentile prompt; this demo's
choice, loose enough for a queue of a few prompts."""
TPOT_SLACK = 1.6
"""TPOT objective over the step time of a full batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """The demo's objectives, seconds."""

    ttft_s: float
    tpot_s: float


def promise_for(workload: Workload, profile: Profile) -> Promise:
    """Scale the objectives to what the profile says this machine can do."""
    isl = float(np.quantile(workload.input_tokens, 0.95))
    idle_s = profile.first_token_s + float(profile.prefill.extended_at(isl, 0.0))
    idle_s += float(profile.transfer.seconds(isl * profile.limits.kv_bytes_per_token))
    idle_s += float(profile.decode_step.extended_at(1, isl))
    step_s = float(profile.decode_step.extended_at(profile.limits.max_num_seqs, isl))
    return Promise(
        ttft_s=round(max(TTFT_SLACK * idle_s, SHORTEST_TTFT_S), 2),
        tpot_s=round(TPOT_SLACK * step_s, 3),
    )


def shape_in(role: Role, model: str) -> ReplicaShape:
    """One slot in a role."""
    return ReplicaShape(role=role, model=model, accelerator=ACCELERATOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What the spec is made of."""

    profile: Profile
    promise: Promise
    model_directory: Path
    slots: int
    window_s: float
    seed: int


def _horizon(described: Description) -> int:
    """Windows to plan: two that a replica started now is ready for."""
    return 2 + math.ceil(described.profile.lifecycle.start_warm_s / described.window_s)


def write_spec(folder: Path, described: Description) -> Path:
    """Write `spec.yaml`, `profile.json` and the model's `config.json` side by side."""
    profile = described.profile
    write_profile(profile, folder / "profile.json")
    shutil.copyfile(described.model_directory / "config.json", folder / "config.json")
    pools = [
        {
            "model": profile.model,
            "role": role.value,
            "accelerator": ACCELERATOR,
            "tp": 1,
            "min_replicas": 1,
            "max_replicas": described.slots - 1,
        }
        for role in (Role.PREFILL, Role.DECODE)
    ]
    spec = {
        "apiVersion": "poolwise/v1",
        "name": "demo",
        "models": [{"name": profile.model, "config": "config.json"}],
        "slos": [
            {
                "model": profile.model,
                "request_class": "default",
                "ttft_s": described.promise.ttft_s,
                "tpot_s": described.promise.tpot_s,
                "attainment_ratio": ATTAINMENT_RATIO,
            }
        ],
        "accelerators": [
            {
                "name": ACCELERATOR,
                "per_node": described.slots,
                "inventory": described.slots,
                "usd_per_gpu_hour": {"on_demand": USD_PER_SLOT_HOUR},
            }
        ],
        "profiles": ["profile.json"],
        "pools": pools,
        "target": {"kind": "local"},
        "forecast": {
            "window_s": described.window_s,
            "horizon_windows": _horizon(described),
            "demand_level": DEMAND_LEVEL,
        },
        "loop": {"seed": described.seed},
    }
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path
