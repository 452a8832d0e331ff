"""What fits into the memory of one replica: weights, one step's work, and the KV cache.

Arithmetic on one accelerator, the fullest of the replica: tensor parallelism divides weights and
KV heads (a head is the least that one holds), pipeline parallelism divides layers (the fullest
stage decides). What is left of the engine's share of memory becomes KV cache.
"""

import math
from dataclasses import dataclass

from planner.domain.fleet import ReplicaShape
from planner.domain.model import Model

MEMORY_SHARE = 0.9
"""Share of memory that the engine takes: vLLM's default `gpu_memory_utilization`."""
STEP_VALUES_PER_TOKEN = 18
"""Activations at the peak of a step, in hidden sizes a token, two bytes each: 1.26 GiB for 8,192
tokens of Llama 3 8B, at tp 1 and at tp 2 alike (vLLM's own log, vLLM pull request 10511)."""
ENGINE_BYTES = 2e9
"""CUDA context, NCCL buffers and graphs on each accelerator: 1.79 GiB in the same log."""
DEFAULT_STEP_TOKENS = 8192
"""`max_num_batched_tokens` where the shape leaves it open: vLLM's default for serving on large
GPUs."""
BLOCK_TOKENS = 16
"""KV cache is handed out in such blocks (vLLM on GPUs)."""
LEAST_KV_TOKENS = 1024
"""A replica with less KV cache than this is no use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFit:
    """Where the memory of one accelerator of a replica goes, bytes.

    Parameters
    ----------
    usable_bytes : float
        The engine's share of the accelerator's memory.
    weight_bytes : float
        Weights on the fullest accelerator.
    overhead_bytes : float
        One step's activations, and what the engine takes besides.
    kv_bytes_per_token : float
        KV cache of one token on the fullest accelerator.
    kv_tokens : int
        Tokens whose KV cache the replica holds, in whole blocks; 0: none.
    """

    usable_bytes: float
    weight_bytes: float
    overhead_bytes: float
    kv_bytes_per_token: float
    kv_tokens: int

    @property
    def kv_bytes(self) -> float:
        """Memory left for KV cache; below 0, what is missing for the weights alone."""
        return self.usable_bytes - self.weight_bytes - self.overhead_bytes

    @property
    def text(self) -> str:
        """Where the memory of one accelerator goes, as a sentence."""
        left = f"{self.kv_bytes / 1e9:.1f} GB" if self.kv_bytes > 0 else "nothing"
        return (
            f"weights of {self.weight_bytes / 1e9:.1f} GB and {self.overhead_bytes / 1e9:.1f} GB "
            f"for the engine leave {left} of {self.usable_bytes / 1e9:.1f} GB for KV cache"
        )

    def missing_bytes(self, context_tokens: int) -> float:
        """What every accelerator lacks to hold one request of this length; 0: nothing."""
        blocks = math.ceil(context_tokens / BLOCK_TOKENS)
        return max(blocks * BLOCK_TOKENS * self.kv_bytes_per_token - self.kv_bytes, 0.0)


def memory_fit(model: Model, shape: ReplicaShape, memory_bytes: float) -> MemoryFit:
    """What fits into the memory of one replica of `shape`.

    Parameters
    ----------
    model : Model
        As published; the shape's formats replace its own.
    memory_bytes : float
        Of one accelerator.

    References
    ----------
    KV cache per token 2 x layers x kv_heads x head_size x bytes; with more accelerators than KV
    heads each holds one head (vLLM, `ModelConfig.get_num_kv_heads`), which holds for latent
    attention too: its one vector is on each.
    """
    stored = model.stored_as(weight_dtype=shape.weight_dtype, kv_dtype=shape.kv_dtype)
    layers = math.ceil(model.layers / shape.pp)
    heads = max(model.kv_heads / shape.tp, 1.0)
    kv_bytes_per_token = stored.kv_bytes_per_token * (layers / model.layers)
    kv_bytes_per_token *= heads / model.kv_heads
    usable = MEMORY_SHARE * memory_bytes
    weights = stored.weight_bytes * (layers / model.layers) / shape.tp
    overhead = ENGINE_BYTES + step_bytes(model, shape.max_num_batched_tokens)
    blocks = (usable - weights - overhead) / (kv_bytes_per_token * BLOCK_TOKENS)
    return MemoryFit(
        usable_bytes=usable,
        weight_bytes=weights,
        overhead_bytes=overhead,
        kv_bytes_per_token=kv_bytes_per_token,
        kv_tokens=max(math.floor(blocks), 0) * BLOCK_TOKENS,
    )


def step_bytes(model: Model, max_num_batched_tokens: int | None) -> float:
    """Activations at the peak of one step, bytes on each accelerator."""
    tokens = max_num_batched_tokens or DEFAULT_STEP_TOKENS
    return 2.0 * STEP_VALUES_PER_TOKEN * hidden_size(model) * tokens


def hidden_size(model: Model) -> float:
    """The hidden size that fits the parameter count: sqrt(parameters / (12 x layers)).

    References
    ----------
    Kaplan et al. (2020), section 2.1: 12 x layers x hidden^2 parameters.
    """
    return math.sqrt(model.active_parameters / (12.0 * model.layers))
