"""Profiles from aiconfigurator's silicon database: estimates, labelled so.

NVIDIA's aiconfigurator holds times of single operations (GEMM, attention, all-reduce) measured on
GPUs and adds them up to the time of a step. Its core is asked for the points of Poolwise's tables;
nothing here is measured with an engine. What it does not know (KV transfer, start-up, flips) is
assumed as in `profiler.estimate`. It has times of mixed steps, too, but a profile has no place for
them: an aggregated replica is composed of its prefill and decode tables, which
`benchmarks.aiconfigurator` holds against its mixed steps.

The package is optional (`poolwise[aiconfigurator]`) and imported only when it is asked.
"""

import importlib.metadata
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from planner.capacity.memory import DEFAULT_STEP_TOKENS, LEAST_KV_TOKENS
from planner.domain.errors import ProfileError
from planner.domain.fleet import Role
from planner.domain.profile import (
    EngineLimits,
    Profile,
    ProfileKind,
    Provenance,
    TimeTable,
)
from profiler.estimate import ASSUMED_TRANSFER, FIRST_TOKEN_S, assumed_lifecycle
from profiler.files import with_profile_id

Floats = NDArray[np.float64]

PACKAGE = "aiconfigurator_core"
"""The part of the distribution `aiconfigurator` that estimates; it brings the database along."""
BACKEND = "vllm"
KV_TOLERANCE_RATIO = 0.02
"""Of the KV cache lost to blocks and profiling: `KV_CACHE_MEMORY_TOLERANCE` of its vLLM backend."""
ERROR_RATIO = 0.5
"""The stated interval: its times to the first token are off by 35 % to 50 % of the served samples
that it ships (`silicon_sample.csv`), its times per token by 3 % to 12 % (medians)."""
POINTS_PER_OCTAVE = 4
"""Times between are interpolated: within 1 % in the median, 9 % at the steps of its kernels."""
FIRST_PROMPT_TOKENS, FIRST_CONTEXT_TOKENS, FIRST_CACHED_TOKENS = 16, 128, 1024
SINGLE_SEQUENCES = 16
"""Batches up to here are asked for one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateRequest:
    """Which replica is to be estimated.

    Parameters
    ----------
    model_path : str
        The model as aiconfigurator names it, as in `Qwen/Qwen3-32B` or `Qwen/Qwen3-32B-FP8`
        (the number formats follow from it), or a folder with its `config.json`.
    accelerator : str
        Its name in specs.
    name : str or None
        The model's name in specs; None: `model_path`.
    system : str or None
        aiconfigurator's name of the machine, as in `h100_sxm`; None: found by the accelerator.
    """

    model_path: str
    accelerator: str
    tp: int = 1
    name: str | None = None
    system: str | None = None
    roles: tuple[Role, ...] = tuple(Role)
    max_num_seqs: int = 512
    max_num_batched_tokens: int = DEFAULT_STEP_TOKENS

    def __post_init__(self) -> None:
        for field in ("tp", "max_num_seqs", "max_num_batched_tokens"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimates:
    """What aiconfigurator says of one replica, in its own unit of time.

    Parameters
    ----------
    prefill_ms : (new_tokens, cached_tokens) float, milliseconds
        One prompt alone.
    decode_step_ms : (sequences, context_tokens) float, milliseconds
    kv_bytes_per_token, weight_bytes : float
        Of the whole replica, bytes.
    max_context_tokens : int
        Of the model.
    """

    version: str
    engine_version: str
    system: str
    new_tokens: Floats
    cached_tokens: Floats
    prefill_ms: Floats
    sequences: Floats
    context_tokens: Floats
    decode_step_ms: Floats
    kv_capacity_tokens: int
    kv_bytes_per_token: float
    weight_bytes: float
    max_context_tokens: int


def import_profile(request: EstimateRequest, *, asked_at: datetime) -> Profile:
    """What aiconfigurator says of a replica, as a profile.

    Raises
    ------
    ProfileError
        When the package is missing, or has no data for this model, machine or tp.
    """
    return profile_from(request, read_estimates(request), asked_at=asked_at)


def profile_from(request: EstimateRequest, found: Estimates, *, asked_at: datetime) -> Profile:
    """The profile that holds these estimates.

    Measured kernels are jagged: more work sometimes takes a little less time. A profile may not
    say so, as planning with more work must not look cheaper, so the highest time so far is taken.

    Raises
    ------
    ProfileError
        When the weights leave no room for a KV cache, or values make no profile.
    """
    if found.kv_capacity_tokens < LEAST_KV_TOKENS:
        raise ProfileError(
            f"{request.model_path} on {request.tp} x {found.system}: aiconfigurator finds room "
            f"for a KV cache of {found.kv_capacity_tokens} tokens only: raise tp"
        )
    try:
        return with_profile_id(_profile(request, found, asked_at))
    except ValueError as error:
        raise ProfileError(
            f"aiconfigurator {found.version} gave values for {request.model_path} on "
            f"{found.system} that make no profile: {error}"
        ) from error


def _profile(request: EstimateRequest, found: Estimates, asked_at: datetime) -> Profile:
    prefill = TimeTable(
        x_name="new tokens",
        y_name="cached tokens",
        x=found.new_tokens,
        y=found.cached_tokens,
        seconds=_growing(found.prefill_ms) / 1e3,
    )
    decode_step = TimeTable(
        x_name="sequences",
        y_name="context tokens",
        x=found.sequences,
        y=found.context_tokens,
        seconds=_growing(found.decode_step_ms) / 1e3,
    )
    return Profile(
        profile_id="",
        model=request.name or request.model_path,
        accelerator=request.accelerator,
        tp=request.tp,
        roles=request.roles,
        prefill=prefill,
        decode_step=decode_step,
        transfer=ASSUMED_TRANSFER,
        first_token_s=FIRST_TOKEN_S,
        limits=EngineLimits(
            kv_capacity_tokens=found.kv_capacity_tokens,
            kv_bytes_per_token=found.kv_bytes_per_token,
            max_num_seqs=request.max_num_seqs,
            max_num_batched_tokens=request.max_num_batched_tokens,
            max_model_len=min(found.max_context_tokens, found.kv_capacity_tokens),
        ),
        lifecycle=assumed_lifecycle(found.weight_bytes),
        provenance=Provenance(
            kind=ProfileKind.ESTIMATED,
            source=f"by aiconfigurator {found.version}, its silicon database; transfer and "
            "life cycle assumed",
            measured_at=asked_at,
            machine=f"{request.tp} x {found.system}",
            engine=f"{BACKEND} {found.engine_version}, not run",
            points=found.prefill_ms.size + found.decode_step_ms.size,
            error_ratio=ERROR_RATIO,
        ),
    )


def _growing(table: Floats) -> Floats:
    return np.asarray(np.maximum.accumulate(table, axis=0))


def read_estimates(request: EstimateRequest) -> Estimates:
    """Ask aiconfigurator for the points of the tables.

    Raises
    ------
    ProfileError
        When the package is missing, or has no data for this model, machine or tp.
    """
    version = installed_version()
    with _its_errors_as_ours(request, version):
        from aiconfigurator_core.sdk import perf_database
        from aiconfigurator_core.sdk.engine import EngineHandle
        from aiconfigurator_core.sdk.utils import get_model_config_from_model_path

        system = request.system or system_of(request.accelerator, _systems(), version=version)
        engine_version = str(perf_database.get_latest_database_version(system, BACKEND))
        context = int(get_model_config_from_model_path(request.model_path)["context"])
        memory = _memory(request, system, engine_version)
        engine = EngineHandle.compile(
            request.model_path,
            system,
            BACKEND,
            backend_version=engine_version,
            tp_size=request.tp,
        )
        longest = max(min(context, memory.kv_capacity_tokens), FIRST_CACHED_TOKENS + 1)
        new = grid(FIRST_PROMPT_TOKENS, longest)
        cached = np.concatenate([[0.0], grid(FIRST_CACHED_TOKENS, longest, per_octave=1)])
        sequences, lengths = batches(request.max_num_seqs), grid(FIRST_CONTEXT_TOKENS, longest)
        prefill_ms = [
            [engine.predict_prefill_latency(1, int(n + c), int(c)) for c in cached] for n in new
        ]
        # Of so many sequences, a prompt and an answer: the context is prompt + answer / 2.
        decode_step_ms = [
            [engine.decode_step_latency(int(b), int(c), 0) for c in lengths] for b in sequences
        ]
    return Estimates(
        version=version,
        engine_version=engine_version,
        system=system,
        new_tokens=new,
        cached_tokens=cached,
        prefill_ms=np.array(prefill_ms),
        sequences=sequences,
        context_tokens=lengths,
        decode_step_ms=np.array(decode_step_ms),
        kv_capacity_tokens=memory.kv_capacity_tokens,
        kv_bytes_per_token=memory.kv_bytes_per_token,
        weight_bytes=memory.weight_bytes,
        max_context_tokens=context,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Memory:
    kv_capacity_tokens: int
    kv_bytes_per_token: float
    weight_bytes: float


def _memory(request: EstimateRequest, system: str, engine_version: str) -> _Memory:
    """What the whole replica holds, with vLLM's own share of the memory and its tolerance."""
    from aiconfigurator_core.sdk.backends.factory import get_backend
    from aiconfigurator_core.sdk.memory import estimate_kv_cache

    share = get_backend(BACKEND).get_default_free_gpu_memory_fraction(engine_version)
    found = estimate_kv_cache(
        request.model_path,
        system,
        BACKEND,
        engine_version,
        max_num_tokens=request.max_num_batched_tokens,
        max_batch_size=request.max_num_seqs,
        memory_fraction_kind="of_total",
        memory_fraction_value=share,
        tp_size=request.tp,
        tolerance_fraction=KV_TOLERANCE_RATIO,
    )
    return _Memory(
        kv_capacity_tokens=int(found["tolerance_adjusted"]["total_kv_size_tokens"]),
        kv_bytes_per_token=float(found["kv_size_per_token_bytes"]) * request.tp,
        weight_bytes=float(found["memory_breakdown"]["weights_bytes"]) * request.tp,
    )


def installed_version() -> str:
    """The version of aiconfigurator here.

    Raises
    ------
    ProfileError
        When it is not installed.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise ProfileError(
            "aiconfigurator is not installed here: it is an optional part, "
            "`pip install 'poolwise[aiconfigurator]'`"
        )
    return importlib.metadata.version("aiconfigurator-core")


def system_of(accelerator: str, systems: Sequence[str], *, version: str) -> str:
    """The machine in aiconfigurator for an accelerator's name, as in h100_sxm for H100-80GB.

    Raises
    ------
    ProfileError
        When there is none, or more than one.
    """
    name = accelerator.lower().replace("-", "_")
    word = name.split("_")[0]
    matching = [s for s in systems if s.split("_")[0] == word]
    for wanted in (name, f"{word}_sxm"):
        if wanted in matching:
            return wanted
    if len(matching) == 1:
        return matching[0]
    raise ProfileError(
        f"accelerator {accelerator}: aiconfigurator {version} has "
        f"{'several machines' if matching else 'no machine'} of that name with times of "
        f"{BACKEND}: choose one with --system, of {', '.join(matching or systems)}"
    )


def _systems() -> list[str]:
    """Machines with times of the backend."""
    from aiconfigurator_core.sdk import perf_database

    known = perf_database.get_supported_databases()
    return sorted(str(name) for name, backends in known.items() if BACKEND in backends)


def grid(first: int, last: int, *, per_octave: int = POINTS_PER_OCTAVE) -> Floats:
    """Whole numbers from `first` to `last`, so many to a doubling; increasing."""
    if last <= first:
        return np.array([float(first)])
    count = int(np.floor(np.log2(last / first) * per_octave)) + 1
    steps = np.round(first * 2.0 ** (np.arange(count) / per_octave))
    return np.unique(np.append(steps, float(last)))


def batches(most: int) -> Floats:
    """Every batch up to `SINGLE_SEQUENCES`, then so many to a doubling, up to `most`."""
    single = np.arange(1.0, min(most, SINGLE_SEQUENCES) + 1)
    more = grid(SINGLE_SEQUENCES, most) if most > SINGLE_SEQUENCES else single
    return np.union1d(single, more)


@contextmanager
def _its_errors_as_ours(request: EstimateRequest, version: str) -> Iterator[None]:
    """Its errors (assertions among them) as one of ours; its warnings of other data unsaid."""
    its_log = logging.getLogger(PACKAGE)
    before = its_log.level
    its_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ProfileError:
        raise
    except Exception as error:  # it has no tree of errors of its own
        first = (str(error).splitlines() or [type(error).__name__])[0]
        where = request.system or request.accelerator
        raise ProfileError(
            f"aiconfigurator {version} cannot estimate {request.model_path} on {request.tp} x "
            f"{where} with {BACKEND}: {first}"
        ) from error
    finally:
        its_log.setLevel(before)
