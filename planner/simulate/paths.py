"""Requests as they may arrive along one path through a forecast's windows."""

from dataclasses import replace

import numpy as np

from planner.domain.forecast import Demand, ForecastWindow, Paths, Quantiles
from planner.domain.workload import Floats, Shape, Workload
from planner.simulate.sample import sample_workload

MOST_STRETCHED = 4.0
"""Lengths follow a path's tokens per request up to this factor either way; further a path's rates
would ask for lengths that no request of the class ever had."""


def sample_path(paths: Paths, path: int, *, rng: np.random.Generator) -> Workload:
    """Requests of all windows, one after another, at the rates of one path.

    Arrivals and lengths are drawn window by window as `sample_workload` does. Lengths keep the
    shape of the forecast and are stretched so that tokens per request are those of the path.

    Parameters
    ----------
    path : int
        From 0.
    rng : numpy Generator
        Equal states give equal workloads.

    Raises
    ------
    ValueError
        When there is no such path.
    """
    if not 0 <= path < paths.count:
        raise ValueError(f"paths are 0 to {paths.count - 1}, got {path}")
    parts = [
        sample_workload(
            _at_rates(paths, path, index), level=0.5, duration_s=window.window_s, rng=rng
        )
        for index, window in enumerate(paths.windows)
    ]
    return _one_after_another(parts)


def _at_rates(paths: Paths, path: int, index: int) -> ForecastWindow:
    """A window without doubt: its classes have the rates of the path."""
    window = paths.windows[index]
    rates = {of_class.request_class: of_class.rates[path, index] for of_class in paths.classes}
    return replace(
        window, demands=tuple(_certain(d, rates[d.request_class]) for d in window.demands)
    )


def _certain(demand: Demand, rates: Floats) -> Demand:
    requests, prompts, answers = (Quantiles(levels=(0.5,), values=(float(rate),)) for rate in rates)
    return replace(
        demand,
        request_rate_rps=requests,
        input_tokens_per_s=prompts,
        output_tokens_per_s=answers,
        shape=_stretched(
            demand.shape,
            inputs=_factor(prompts.median, requests.median, demand.shape.isl_mean),
            outputs=_factor(answers.median, requests.median, demand.shape.osl_mean),
        ),
    )


def _factor(tokens_per_s: float, rate_rps: float, mean_tokens: float) -> float:
    """By what lengths are multiplied; 1 where nothing arrives to have a length."""
    if rate_rps <= 0 or mean_tokens <= 0 or tokens_per_s <= 0:
        return 1.0
    return float(np.clip(tokens_per_s / rate_rps / mean_tokens, 1 / MOST_STRETCHED, MOST_STRETCHED))


def _stretched(shape: Shape, *, inputs: float, outputs: float) -> Shape:
    """A prompt and the cached part of it grow alike: the reuse stays."""
    return replace(
        shape,
        input_tokens=np.maximum(shape.input_tokens * inputs, 1.0),
        output_tokens=np.maximum(shape.output_tokens * outputs, 1.0),
        cached_tokens=shape.cached_tokens * inputs,
    )


def _one_after_another(parts: list[Workload]) -> Workload:
    starts = np.concatenate([[0.0], np.cumsum([part.duration_s for part in parts])])

    return Workload(
        start_at=parts[0].start_at,
        arrival_offset_s=np.concatenate(
            [part.arrival_offset_s + start_s for part, start_s in zip(parts, starts, strict=False)]
        ),
        input_tokens=np.concatenate([part.input_tokens for part in parts]),
        output_tokens=np.concatenate([part.output_tokens for part in parts]),
        cached_tokens=np.concatenate([part.cached_tokens for part in parts]),
        request_class=np.concatenate([part.request_class for part in parts]),
        duration_s=float(starts[-1]),
    )
