"""What a prompt occupies, from all the prompts that were sent: those alone, too.

The slope of a burst, (burst - alone) / (k - 1), is free of whatever comes once per request (HTTP,
router, transfer, the decode step), but uses the prompts that were sent alone only to take them
away, so that it scatters. What comes once depends on length at most linearly. Estimated from all
points together it is known well, and then every prompt counts:

    busy = (burst + n alone - (1 + n) once) / (k + n)

for a burst of k prompts and n sent alone. With k = n = 4 that has half the standard deviation of
the slope.
"""

from dataclasses import replace

import numpy as np
from scipy.optimize import nnls

from profiler.samples import Kind, Sample, Samples, mean_of

LEAST_POINTS = 3
LEAST_BUSY_RATIO = 0.2
"""A prompt occupies prefill for at least this share of its slope: less is a wrong `once`."""


def with_every_prompt(samples: Samples) -> Samples:
    """The same samples with `busy_s` of prefill from all prompts; few points leave it as it is."""
    points = samples.points(Kind.PREFILL)
    if len(points) < LEAST_POINTS:
        return samples
    busy = np.array([mean_of(samples.of(p), "busy_s") for p in points])
    alone = np.array([mean_of(samples.of(p), "alone_ttft_s") for p in points])
    counts = np.array([len(samples.of(p)) for p in points])
    tokens = np.array([p.x + p.y for p in points], dtype=np.float64)
    # Slopes scatter in proportion to themselves.
    weight = np.sqrt(counts) / busy
    terms = np.stack([np.ones(len(points)), tokens], axis=1) * weight[:, None]
    (fixed_s, per_token_s), _residual = nnls(terms, np.maximum(alone - busy, 0.0) * weight)
    return Samples([_joined(s, fixed_s, per_token_s) for s in samples.taken])


def _joined(sample: Sample, fixed_s: float, per_token_s: float) -> Sample:
    if sample.point.kind is not Kind.PREFILL or "burst" not in sample.values:
        return sample
    slope_s, alone_s = sample.values["busy_s"], sample.values["alone_ttft_s"]
    burst, count = sample.values["burst"], sample.values["alone_count"]
    burst_s = slope_s * (burst - 1) + alone_s
    once_s = fixed_s + per_token_s * (sample.point.x + sample.point.y)
    busy_s = (burst_s + count * alone_s - (1 + count) * once_s) / (burst + count)
    values = {**sample.values, "busy_s": max(busy_s, LEAST_BUSY_RATIO * slope_s)}
    return replace(sample, values=values)
