"""How one vLLM worker is started: command line and environment, on a CPU or on GPUs."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from planner.domain.errors import EngineError
from planner.domain.fleet import ReplicaShape
from planner.domain.model import Dtype
from serving.kv.events import events_address, events_config

NIXL = "NixlConnector"
_BFLOAT16_FEATURES = frozenset({"avx512f", "avx512_bf16", "amx_bf16", "bf16"})
_CPU_FEATURES = Path("/proc/cpuinfo")
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "XDG_CACHE_HOME")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInstall:
    """A vLLM that somebody installed: the interpreter of its virtual environment."""

    python: Path

    def __post_init__(self) -> None:
        if not os.access(self.python, os.X_OK):
            raise EngineError(
                f"no engine at {self.python}: run `make engine`, or set POOLWISE_ENGINE_PYTHON to "
                "the interpreter of an environment that has vLLM"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model on disk: `config.json`, weights, tokenizer, and `words.json` for load tests.

    Parameters
    ----------
    name : str
        The name it is served under.
    """

    name: str
    directory: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFlags:
    """Engine options that decide speed and capacity; the same for all roles.

    Parameters
    ----------
    max_model_len, max_num_seqs, max_num_batched_tokens : int
        vLLM's options of the same names: tokens, sequences, tokens a step.
    kv_cache_gib : int
        KV cache of one worker on a CPU, GiB (vLLM takes whole ones). GPUs size their own.
    enforce_eager : bool
        Skip compilation: starts in half a minute instead of two, decodes slower.
    extra : tuple of str
        Further options, in vLLM's own spelling.
    """

    max_model_len: int = 16384
    max_num_seqs: int = 16
    max_num_batched_tokens: int = 16384
    kv_cache_gib: int = 1
    enforce_eager: bool = True
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Loopback ports of one worker, fresh at each start.

    Data-parallel ranks take the ports after `nixl`, `kv_events` and `kv_replay`, one each.

    Parameters
    ----------
    kv_events, kv_replay : int or None
        Where its KV events go, and where past ones are had; None: it sends none.
    """

    http: int
    nixl: int
    kv_events: int | None = None
    kv_replay: int | None = None

    def kv_events_address(self, ranks: int) -> str | None:
        """Where a view finds the KV events of all ranks (see `serving.kv.events`)."""
        if self.kv_events is None:
            return None
        return events_address(self.kv_events, self.kv_replay, ranks=ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """Where a worker runs: GPU indices, or none of them for the processor.

    Parameters
    ----------
    cpus : tuple of int
        Processors that it is bound to; empty: any.
    """

    gpus: tuple[int, ...] = ()
    cpus: tuple[int, ...] = ()


def command(
    engine: EngineInstall, model: ModelFiles, flags: EngineFlags, shape: ReplicaShape, ports: Ports
) -> list[str]:
    """Build the command line of one worker on this machine."""
    line = [str(engine.python), "-m", "vllm.entrypoints.cli.main"]
    served = str(model.directory)
    return line + engine_arguments(served, flags, shape, ports, name=model.name, host="127.0.0.1")


def engine_arguments(
    model: str, flags: EngineFlags, shape: ReplicaShape, ports: Ports, *, name: str, host: str
) -> list[str]:
    """Arguments of `vllm` for one worker: the shape's limits before the site's.

    The KV role is a placeholder in NIXL: every worker can read a prompt and write an answer,
    and the router decides which of the two it does. A failed KV load fails the request, so
    that decode never computes a prompt unnoticed.

    Parameters
    ----------
    model : str
        What it loads: a folder, or a repository's name.
    name : str
        The name it is served under.
    host : str
        The address that it listens on.
    """
    transfer = {
        "kv_connector": NIXL,
        "kv_role": "kv_both",
        "kv_load_failure_policy": "fail",
    }
    line = ["serve", model, "--served-model-name", name]
    line += ["--host", host, "--port", str(ports.http)]
    line += ["--max-model-len", str(flags.max_model_len)]
    line += ["--max-num-seqs", str(shape.max_num_seqs or flags.max_num_seqs)]
    step_tokens = shape.max_num_batched_tokens or flags.max_num_batched_tokens
    line += ["--max-num-batched-tokens", str(step_tokens)]
    line += ["--tensor-parallel-size", str(shape.tp), "--pipeline-parallel-size", str(shape.pp)]
    line += ["--data-parallel-size", str(shape.dp)] if shape.dp > 1 else []
    line += format_options(shape)
    line += ["--disable-uvicorn-access-log"]
    line += ["--enforce-eager"] if flags.enforce_eager else []
    if ports.kv_events is not None:
        line += ["--kv-events-config", events_config(ports.kv_events, ports.kv_replay)]
    return [*line, "--kv-transfer-config", json.dumps(transfer), *flags.extra, *shape.engine_flags]


_WEIGHT_OPTIONS = {
    Dtype.FLOAT32: ("--dtype", "float32"),
    Dtype.BFLOAT16: ("--dtype", "bfloat16"),
    Dtype.FLOAT16: ("--dtype", "float16"),
    Dtype.FP8: ("--quantization", "fp8"),
}
_KV_OPTIONS = {
    Dtype.BFLOAT16: ("--kv-cache-dtype", "bfloat16"),
    Dtype.FP8: ("--kv-cache-dtype", "fp8"),
}


def format_options(shape: ReplicaShape) -> list[str]:
    """Options for formats of weights and KV cache that are not the model's own.

    Raises
    ------
    EngineError
        For a format that vLLM does not make while loading: it needs a checkpoint that has it.
    """
    options: list[str] = []
    if shape.weight_dtype is not None:
        if shape.weight_dtype not in _WEIGHT_OPTIONS:
            raise EngineError(
                f"{shape.label}: vLLM does not turn weights into {shape.weight_dtype} while it "
                "loads them: serve a checkpoint that is stored so, as a model of its own"
            )
        options += _WEIGHT_OPTIONS[shape.weight_dtype]
    if shape.kv_dtype is not None:
        if shape.kv_dtype not in _KV_OPTIONS:
            raise EngineError(
                f"{shape.label}: vLLM keeps no KV cache in {shape.kv_dtype}: use "
                f"{' or '.join(_KV_OPTIONS)}"
            )
        options += _KV_OPTIONS[shape.kv_dtype]
    return options


def cpu_number_format(features: Path = _CPU_FEATURES) -> str:
    """The number format that this processor computes fast, in vLLM's spelling.

    A processor with AVX2 only emulates bfloat16: prompts take five times as long as in float32
    (75 against 400 tokens/s on half a core of an AMD EPYC 7003, vLLM 0.32).
    """
    try:
        lines = features.read_text().splitlines()
    except OSError:
        return "bfloat16"
    named = [x for x in lines if x.startswith(("flags", "Features"))]
    has = set(named[0].partition(":")[2].split()) if named else set(_BFLOAT16_FEATURES)
    return "bfloat16" if has & _BFLOAT16_FEATURES else "float32"


def cpu_command(line: list[str]) -> list[str]:
    """Add what a CPU worker needs: its number format, and NIXL buffers in host memory."""
    position = line.index("--kv-transfer-config") + 1
    transfer = json.loads(line[position])
    transfer |= {"kv_buffer_device": "cpu", "kv_connector_extra_config": {"num_threads": 1}}
    changed = [*line[:position], json.dumps(transfer), *line[position + 1 :]]
    return changed if "--dtype" in changed else [*changed, "--dtype", cpu_number_format()]


def environment(
    flags: EngineFlags, devices: Devices, ports: Ports, marker: Mapping[str, str]
) -> dict[str, str]:
    """Build the environment of one worker: what it needs and nothing of the caller's secrets."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    kept |= {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(ports.nixl),
        **marker,
    }
    if devices.gpus:
        # By bus, as NVML numbers them: CUDA's own order begins with the fastest.
        return kept | {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, devices.gpus)),
        }
    return kept | {
        "VLLM_CPU_KVCACHE_SPACE": str(flags.kv_cache_gib),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "UCX_TLS": "tcp,self",
        "UCX_NET_DEVICES": "lo",
    }
