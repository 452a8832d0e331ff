"""What an engine and its machine say of themselves: kept with a profile as provenance."""

import json
import platform
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from planner.domain.errors import EngineError, InputError

if TYPE_CHECKING:
    from types import ModuleType

TIMEOUT_S = 10.0
API_KEY = "POOLWISE_PROFILE_API_KEY"
"""Environment variable that holds the key of a server that wants one."""
SKEW_S = 5.0
"""A server's clock that is off by more is noted: its logs will not match a profile's instants."""
_CACHE_FACTS = {
    "block_size": "KV block, tokens",
    "num_gpu_blocks": "KV blocks",
    "cache_dtype": "KV cache format",
    "enable_prefix_caching": "prefix cache",
    "gpu_memory_utilization": "share of the GPU's memory",
    "sliding_window": "sliding window, tokens",
    "prefix_caching_hash_algo": "prefix hash",
}
_OF_A_START = frozenset({_CACHE_FACTS["num_gpu_blocks"]})
"""What an engine finds room for differs a little from start to start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What a server tells over HTTP. None: it does not.

    Parameters
    ----------
    version : str or None
        Of vLLM.
    max_model_len : int or None
        Prompt and answer together, tokens.
    kv_capacity_tokens, kv_block_tokens : int or None
    prefix_cache : bool or None
    told : tuple of (str, str)
        Everything of it for people.
    notes : tuple of str
    """

    version: str | None
    max_model_len: int | None
    kv_capacity_tokens: int | None
    kv_block_tokens: int | None
    prefix_cache: bool | None
    told: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> dict[str, str]:
        """What makes it another engine where it differs; not what each start finds anew."""
        return {name: value for name, value in self.told if name not in _OF_A_START}


def read_engine_facts(
    url: str, model: str, *, metrics_url: str | None = None, api_key: str | None = None
) -> EngineFacts:
    """Ask a server what it is.

    Parameters
    ----------
    url : str
        Base URL without /v1.
    metrics_url : str or None
        Of the engine whose KV cache counts, where `url` is a router's; None: `url`.
    api_key : str or None
        Sent to `url` only.

    Raises
    ------
    EngineError
        When nothing answers there, or not as an OpenAI-compatible server does.
    InputError
        When an address is none, or it does not serve this model; names those that it does.
    """
    for address in (url, metrics_url):
        if address is not None:
            _check_address(address)
    with _client(api_key) as client:
        served, skew_s = _models(client, url)
        if model not in served:
            raise InputError(
                f"{url} does not serve {model}: it lists {', '.join(served) or 'no model'}; give "
                "one of these with --model"
            )
    with _client(api_key if metrics_url is None else None) as client:
        version = _version(client, metrics_url or url)
        cache = _cache_labels(client, metrics_url or url)
    blocks, block = _whole(cache.get("num_gpu_blocks")), _whole(cache.get("block_size"))
    told = [("engine version", version)] if version else []
    told += [(name, cache[label]) for label, name in _CACHE_FACTS.items() if label in cache]
    longest = served[model]
    if longest is not None:
        told.append(("prompt + answer, tokens", str(longest)))
    notes: tuple[str, ...] = ()
    if skew_s is not None and abs(skew_s) > SKEW_S:
        notes = (
            f"the server's clock is {abs(skew_s):.0f} s {'ahead' if skew_s > 0 else 'behind'}: "
            "times here are durations of the client's clock and not touched by it",
        )
    return EngineFacts(
        version=version,
        max_model_len=longest,
        kv_capacity_tokens=blocks * block if blocks and block else None,
        kv_block_tokens=block,
        prefix_cache=_truth(cache.get("enable_prefix_caching")),
        told=tuple(told),
        notes=notes,
    )


def _client(api_key: str | None) -> httpx.Client:
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    return httpx.Client(timeout=TIMEOUT_S, headers=headers)


def _check_address(address: str) -> None:
    try:
        parsed = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise InputError(f"{address} is no address of a server: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InputError(f"{address} is no address of a server: http://host:port is wanted")


def _models(client: httpx.Client, url: str) -> tuple[dict[str, int | None], float | None]:
    """Models with their longest requests, and how far the server's clock is ahead, seconds."""
    try:
        answer = client.get(f"{url}/v1/models")
        answer.raise_for_status()
        listed = answer.json()["data"]
        served = {str(m["id"]): _whole(m.get("max_model_len")) for m in listed}
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        way_out = (
            f"give the right key by the environment variable {API_KEY}"
            if status in (401, 403)
            else "is this its address without /v1?"
        )
        raise EngineError(f"{url}/v1/models answers HTTP {status}: {way_out}") from error
    except httpx.HTTPError as error:
        raise EngineError(
            f"{url}/v1/models does not answer ({error}): is the server running, and is this its "
            "address without /v1?"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(
            f"{url}/v1/models answers something else than an OpenAI-compatible server's list"
        ) from error
    try:
        date = parsedate_to_datetime(answer.headers["date"])
        skew = (date - datetime.now(UTC)).total_seconds()
    except (KeyError, ValueError, TypeError):
        skew = None
    return served, skew


def _version(client: httpx.Client, url: str) -> str | None:
    try:
        answer = client.get(f"{url}/version")
        return str(answer.json()["version"]) if answer.status_code == 200 else None
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


def _cache_labels(client: httpx.Client, url: str) -> Mapping[str, str]:
    """Labels of vLLM's `vllm:cache_config_info`; empty where there is none."""
    for sample in _metrics(client, url):
        if sample[0] == "vllm:cache_config_info":
            return sample[1]
    return {}


def _metrics(client: httpx.Client, url: str) -> list[tuple[str, dict[str, str], float]]:
    try:
        answer = client.get(f"{url}/metrics")
        if answer.status_code != 200:
            return []
        return [
            (s.name, s.labels, s.value)
            for family in text_string_to_metric_families(answer.text)
            for s in family.samples
        ]
    except (httpx.HTTPError, ValueError):
        return []


@dataclass(slots=True)
class EngineIdentity:
    """Tells one run of an engine from the next: by the start of its process, else by counters.

    Called between samples; the answer changes when the engine restarted. None: not told.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    _generated: float = 0.0
    _restarts: int = 0

    def __call__(self) -> str | None:
        """Read its metrics."""
        with _client(self.api_key) as client:
            samples = _metrics(client, self.url)
        begun = next((v for n, _, v in samples if n == "process_start_time_seconds"), None)
        if begun is not None:
            return f"{begun:.2f}"
        generated = sum(v for n, _, v in samples if n == "vllm:generation_tokens_total")
        if not samples:
            return None
        if generated < self._generated:
            self._restarts += 1
        self._generated = generated
        return str(self._restarts)


def _whole(value: object) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None


def _truth(value: str | None) -> bool | None:
    return None if value is None else value.lower() == "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """The device that computes.

    Parameters
    ----------
    name : str
        One line.
    told : tuple of (str, str)
    memory_bytes, power_w : float or None
        In use now, where a GPU tells it.
    """

    name: str
    told: tuple[tuple[str, str], ...]
    memory_bytes: float | None = None
    power_w: float | None = None


def cpu_facts() -> MachineFacts:
    """The processor of this machine, by lscpu where there is one."""
    told = dict(_lscpu())
    name = told.get("Model name") or platform.processor() or platform.machine()
    kept = ("Model name", "CPU(s)", "Thread(s) per core", "L3 cache", "Hypervisor vendor")
    facts = [(k, told[k]) for k in kept if k in told]
    return MachineFacts(name=name, told=(*facts, ("kernel", platform.release())))


def _lscpu() -> list[tuple[str, str]]:
    try:
        done = subprocess.run(
            ["lscpu", "-J"], capture_output=True, text=True, timeout=10, check=True
        )
        rows = json.loads(done.stdout)["lscpu"]
        return [(str(r["field"]).rstrip(":"), str(r["data"])) for r in rows]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return []


def gpu_facts(devices: tuple[int, ...]) -> MachineFacts:
    """The GPUs of a replica, by nvidia-ml-py.

    Not measured on a GPU: written after NVML's documentation.

    Raises
    ------
    EngineError
        When nvidia-ml-py or the driver is missing.
    """
    nvml = _nvml()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise EngineError(f"NVIDIA's driver does not answer: {error}") from error
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in devices]
        names = [_text(nvml.nvmlDeviceGetName(h)) for h in handles]
        told = [
            ("device", f"{len(handles)} x {names[0]}" if len(set(names)) == 1 else str(names)),
            ("driver", _text(nvml.nvmlSystemGetDriverVersion())),
            ("power limit, W", str(nvml.nvmlDeviceGetPowerManagementLimit(handles[0]) / 1000)),
            ("memory, bytes", str(nvml.nvmlDeviceGetMemoryInfo(handles[0]).total)),
            (
                "SM clock now, MHz",
                str(nvml.nvmlDeviceGetClockInfo(handles[0], nvml.NVML_CLOCK_SM)),
            ),
            (
                "clocks held back by",
                _throttled(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handles[0]), nvml),
            ),
        ]
        return MachineFacts(
            name=told[0][1],
            told=tuple(told),
            memory_bytes=float(sum(nvml.nvmlDeviceGetMemoryInfo(h).used for h in handles)),
            power_w=sum(nvml.nvmlDeviceGetPowerUsage(h) for h in handles) / 1000,
        )
    except nvml.NVMLError as error:
        raise EngineError(f"GPUs {devices} do not tell what they are: {error}") from error
    finally:
        nvml.nvmlShutdown()


class PowerGauge:
    """Reads the power of GPUs once a second in a thread of its own. Use as a context manager.

    Not measured on a GPU: written after NVML's documentation.

    Parameters
    ----------
    devices : tuple of int
    """

    def __init__(self, devices: tuple[int, ...]) -> None:
        self._devices = devices
        self._read_w: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poolwise-power", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=5)

    @property
    def busy_w(self) -> float | None:
        """Mean of the upper half of the readings, W: between measurements the GPUs rest."""
        ordered = sorted(self._read_w)
        upper = ordered[len(ordered) // 2 :]
        return sum(upper) / len(upper) if upper else None

    def _run(self) -> None:
        while not self._over.wait(1.0):
            try:
                power_w = gpu_facts(self._devices).power_w
            except EngineError:
                return  # said once by whoever asks for the device's facts
            if power_w is not None:
                self._read_w.append(power_w)


def _nvml() -> "ModuleType":
    try:
        import pynvml
    except ImportError as error:
        raise EngineError(
            "nvidia-ml-py is not installed, so the GPU's memory, power and clocks cannot be read: "
            "`pip install 'poolwise[gpu]'`"
        ) from error
    module: ModuleType = pynvml
    return module


_REASONS = {
    "nvmlClocksThrottleReasonSwPowerCap": "power cap",
    "nvmlClocksThrottleReasonHwSlowdown": "hardware slowdown",
    "nvmlClocksThrottleReasonHwThermalSlowdown": "heat",
    "nvmlClocksThrottleReasonSwThermalSlowdown": "heat",
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown": "power brake",
}


def _throttled(reasons: int, nvml: "ModuleType") -> str:
    found = {text for name, text in _REASONS.items() if reasons & getattr(nvml, name, 0)}
    return ", ".join(sorted(found)) or "nothing"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
