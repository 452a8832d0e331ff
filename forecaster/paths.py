"""Possible futures drawn from a forecast: how its windows, quantities and classes go together.

Quantiles say what each window may bring on its own. A path says what the windows bring together:
whether a busy first window is followed by a busy second one.
"""

import numpy as np

from planner.domain.forecast import QUANTITIES, ClassPaths, Forecast, Paths
from planner.domain.workload import Floats, Integers

BY_ORIGINS = "windows, quantities and classes go together as the errors of {origins} past forecasts"
ONE_LEVEL = (
    "too few past errors are known of {classes}: one level for all windows of a path, the careful "
    "choice"
)


def sample_paths(forecast: Forecast, paths: int, rng: np.random.Generator) -> Paths:
    """Draw paths through all windows of a forecast, all alike likely.

    Of each window and quantity the paths' levels are spread evenly over 0..1, so that many paths
    have the forecast's quantiles. Which path gets which level follows past origins, drawn at
    random: a path gets the place that its origin's error has among those of all drawn (the
    Schaake shuffle). Errors of one origin stay together, over windows, quantities and classes.
    Where a class knows too few errors, each of its paths keeps one level for all.

    Parameters
    ----------
    forecast : Forecast
        Its `dependence` says how past errors went together. Classes with different numbers of
        origins go together by the newest that all have.
    paths : int
        How many.

    Raises
    ------
    ValueError
        When `paths` is below 1.

    References
    ----------
    Clark, Gangopadhyay, Hay, Rajagopalan and Wilby, "The Schaake shuffle", Journal of
    Hydrometeorology 5 (2004).
    """
    if paths < 1:
        raise ValueError(f"paths must be at least 1, got {paths}")
    known = _known(forecast)
    origins = min((len(ranks) for ranks in known.values()), default=0)
    drawn = _drawn_origins(origins, paths, rng)
    common = _spread(rng.permutation(paths)[:, None, None], rng)
    classes = []
    for name in sorted({d.request_class for w in forecast.windows for d in w.demands}):
        if name in known:
            levels = _shuffled(known[name][-origins:], drawn, rng)
        else:
            levels = np.broadcast_to(common, (paths, len(forecast.windows), QUANTITIES)).copy()
        classes.append(
            ClassPaths(request_class=name, levels=levels, rates=_rates(forecast, name, levels))
        )
    unknown = [one.request_class for one in classes if one.request_class not in known]
    return Paths(
        windows=forecast.windows,
        classes=tuple(classes),
        rule=_rule(origins, unknown),
    )


def _known(forecast: Forecast) -> dict[str, Floats]:
    """Class -> (origins, windows, quantities) ranks, where some are known."""
    return {d.request_class: d.ranks for d in forecast.dependence if len(d.ranks) > 0}


def _drawn_origins(origins: int, paths: int, rng: np.random.Generator) -> Integers:
    """(paths,) an origin for each path: each as often as any other, but for the remainder."""
    rounds = -(-paths // max(origins, 1)) if origins else 0
    every = [rng.permutation(origins) for _ in range(rounds)]
    return np.concatenate(every)[:paths] if every else np.zeros(0, dtype=np.int64)


def _shuffled(ranks: Floats, drawn: Integers, rng: np.random.Generator) -> Floats:
    """(paths, windows, quantities) levels in the order of the drawn origins' errors."""
    of_paths = ranks[drawn]
    order = np.lexsort((rng.uniform(size=of_paths.shape), of_paths), axis=0)
    return _spread(np.argsort(order, axis=0), rng)


def _spread(places: Integers, rng: np.random.Generator) -> Floats:
    """Levels inside equal parts of 0..1, by their places from 0 along the first axis."""
    levels: Floats = (places + rng.uniform(size=places.shape)) / len(places)
    return levels


def _rates(forecast: Forecast, request_class: str, levels: Floats) -> Floats:
    """(paths, windows, quantities) per second; 0 in a window without the class."""
    rates = np.zeros_like(levels)
    for index, window in enumerate(forecast.windows):
        for demand in window.demands:
            if demand.request_class != request_class:
                continue
            for column, quantiles in enumerate(demand.rates):
                rates[:, index, column] = np.interp(
                    levels[:, index, column], quantiles.levels, quantiles.values
                )
    return rates


def _rule(origins: int, unknown: list[str]) -> str:
    said = [BY_ORIGINS.format(origins=origins)] if origins else []
    if unknown:
        said.append(ONE_LEVEL.format(classes=f"class {', '.join(unknown)}"))
    return "; ".join(said)
