"""What a step has to compute and to read, and the peak that bounds it: the roofline model.

References
----------
Roofline model: Williams, Waterman, Patterson (CACM 2009). 2 FLOP per parameter and token and
12 x layers x hidden^2 parameters: Kaplan et al. (2020), section 2.1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.capacity.memory import hidden_size
from planner.domain.hardware import AcceleratorFacts
from planner.domain.model import Dtype, Model
from planner.domain.profile import Profile, TimeTable

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """What one accelerator does at the most: dense FLOP/s, and bytes/s from its memory."""

    flop_per_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work:
    """Of a prefill or a decode step.

    Parameters
    ----------
    flop, memory_bytes : (...) float
        Floating-point operations, and bytes read from memory.
    """

    flop: Floats
    memory_bytes: Floats

    def compute_s(self, peak: Peak, count: int) -> Floats:
        """Seconds that `count` accelerators at their peak need to compute it."""
        return np.asarray(self.flop / (peak.flop_per_s * count))

    def memory_s(self, peak: Peak, count: int) -> Floats:
        """Seconds that `count` accelerators at their peak need to read it."""
        return np.asarray(self.memory_bytes / (peak.bytes_per_s * count))


def peak_of(facts: AcceleratorFacts, weight_dtype: Dtype | None = None) -> Peak | None:
    """The peak for weights of a format; None where the catalogue lacks a figure.

    FP8 weights are counted with the FP8 peak where one is known, all others with that of BF16
    (INT4 and INT8 weights are read in few bits and computed with in more).
    """
    flop_per_s = facts.bf16_flop_per_s
    if weight_dtype is Dtype.FP8 and facts.fp8_flop_per_s is not None:
        flop_per_s = facts.fp8_flop_per_s
    if flop_per_s is None or facts.memory_bandwidth_bytes_per_s is None:
        return None
    return Peak(flop_per_s=flop_per_s, bytes_per_s=facts.memory_bandwidth_bytes_per_s)


def prefill_work(model: Model, new_tokens: Floats, cached_tokens: Floats) -> Work:
    """Of one prompt: 2 P n + 4 L h n (c + n/2) FLOP; the weights once and its KV cache."""
    n, c = new_tokens, cached_tokens
    attention = 4.0 * model.layers * hidden_size(model) * n * (c + n / 2)
    return Work(
        flop=2.0 * model.active_parameters * n + attention,
        memory_bytes=model.weight_bytes + (n + c) * model.kv_bytes_per_token,
    )


def decode_work(model: Model, batch: Floats, context_tokens: Floats) -> Work:
    """Of one step: 2 P b FLOP; the weights once and every sequence's KV cache."""
    b, k = batch, context_tokens
    return Work(
        flop=2.0 * model.active_parameters * b + 0.0 * k,
        memory_bytes=model.weight_bytes + b * k * model.kv_bytes_per_token,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """What no step of a replica can take less time than.

    Parameters
    ----------
    model : Model
        In the formats that it is served in.
    peak : Peak
        Of one accelerator.
    accelerators : int
        That share the work.
    """

    model: Model
    peak: Peak
    accelerators: int

    def prefill_s(self, new_tokens: Floats, cached_tokens: Floats) -> Floats:
        """Least seconds of a prompt."""
        return self._least_s(prefill_work(self.model, new_tokens, cached_tokens))

    def decode_s(self, batch: Floats, context_tokens: Floats) -> Floats:
        """Least seconds of a decode step."""
        return self._least_s(decode_work(self.model, batch, context_tokens))

    def _least_s(self, work: Work) -> Floats:
        """Of experts only those that a token passes through are sure to be read."""
        model, count = self.model, self.accelerators
        spared = model.weight_bytes * (1 - model.active_parameters / model.parameters)
        read = Work(flop=work.flop, memory_bytes=work.memory_bytes - spared)
        return np.maximum(read.compute_s(self.peak, count), read.memory_s(self.peak, count))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Roofed:
    """Measured throughput and the two roofs over it, tokens/s.

    Parameters
    ----------
    x : (nx,) float
        Prompt length (tokens) or batch (sequences).
    y : (ny,) float
        Cached tokens, or context tokens of each sequence.
    measured : (nx, ny) float
    compute, memory : (nx, ny) float or None
        What the peak FLOP/s, and the peak bandwidth, allow; None: not known.
    """

    x: Floats
    y: Floats
    measured: Floats
    compute: Floats | None = None
    memory: Floats | None = None

    @property
    def roof(self) -> Floats | None:
        """The lower of both roofs, (nx, ny)."""
        if self.compute is None or self.memory is None:
            return None
        return np.asarray(np.minimum(self.compute, self.memory))

    @property
    def share(self) -> Floats | None:
        """Measured / roof, (nx, ny)."""
        roof = self.roof
        return None if roof is None else np.asarray(self.measured / roof)


def roofed_prefill(profile: Profile, model: Model | None, peak: Peak | None) -> Roofed:
    """Prompt tokens/s at every measured point, one prompt at a time."""
    return _roofed(profile.prefill, prefill_work, model, peak, profile.tp * profile.pp)


def roofed_decode(profile: Profile, model: Model | None, peak: Peak | None) -> Roofed:
    """Answer tokens/s at every measured point."""
    return _roofed(profile.decode_step, decode_work, model, peak, profile.tp * profile.pp)


def _roofed(
    table: TimeTable,
    work_of: Callable[[Model, Floats, Floats], Work],
    model: Model | None,
    peak: Peak | None,
    count: int,
) -> Roofed:
    kept = table.x > 0
    x = table.x[kept]
    column = x[:, None]
    measured = column / table.seconds[kept]
    if model is None or peak is None:
        return Roofed(x=x, y=table.y, measured=measured)
    work = work_of(model, column, table.y[None, :])
    return Roofed(
        x=x,
        y=table.y,
        measured=measured,
        compute=column / work.compute_s(peak, count),
        memory=column / work.memory_s(peak, count),
    )
