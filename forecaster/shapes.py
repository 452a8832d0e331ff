"""Joint request lengths as a few buckets, with exact means."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri

from planner.domain.workload import Floats, Integers, Shape, Workload

INPUT_BUCKETS = 8
OUTPUT_BUCKETS = 5


def shape_of(
    workload: Workload, *, input_buckets: int = INPUT_BUCKETS, output_buckets: int = OUTPUT_BUCKETS
) -> Shape:
    """The joint lengths of these requests.

    Requests are ranked by input length and cut into groups that grow finer towards the long
    end, then each group the same way by output length; a bucket is the mean of its requests, so
    the mean over buckets is the mean over requests.

    Raises
    ------
    ValueError
        When there is no request.
    """
    return shape_of_lengths(
        workload.input_tokens,
        workload.output_tokens,
        workload.cached_tokens,
        input_buckets=input_buckets,
        output_buckets=output_buckets,
    )


def shape_of_lengths(
    input_tokens: Integers,
    output_tokens: Integers,
    cached_tokens: Integers,
    *,
    input_buckets: int = INPUT_BUCKETS,
    output_buckets: int = OUTPUT_BUCKETS,
) -> Shape:
    """As `shape_of`, of three columns of equal length, tokens."""
    if len(input_tokens) == 0:
        raise ValueError("a shape needs at least one request, got 0")
    return _bucketed(
        np.stack([input_tokens, output_tokens, cached_tokens]).astype(np.float64),
        np.full(len(input_tokens), 1.0 / len(input_tokens)),
        (input_buckets, output_buckets),
    )


def shape_from_totals(
    *,
    requests: int,
    input_tokens: int,
    output_tokens: int,
    cached_tokens: int,
    length_cv: float = 1.0,
) -> Shape:
    """The shape of requests of which only totals are known.

    Input and output are taken as independent; the tokens after each request's first are
    lognormal with coefficient of variation `length_cv`, cut at the same levels as `shape_of`;
    every bucket has the mean of its part of the lognormal, so the means are those of the totals
    (a mean below 1 token counts as 1). Every prompt has the same cached share.

    Parameters
    ----------
    length_cv : float
        By default 1.0: production traces lie between 0.8 and 1.6 (Azure 2023, Mooncake).

    Raises
    ------
    ValueError
        When there is no request, or a total or `length_cv` is negative.
    """
    if requests < 1:
        raise ValueError(f"requests must be at least 1, got {requests}")
    if min(input_tokens, output_tokens, cached_tokens) < 0 or not length_cv >= 0:
        raise ValueError("input_tokens, output_tokens, cached_tokens, length_cv must be >= 0")
    inputs, input_weight = _lognormal_buckets(input_tokens / requests, length_cv, INPUT_BUCKETS)
    outputs, output_weight = _lognormal_buckets(output_tokens / requests, length_cv, OUTPUT_BUCKETS)
    cached_ratio = min(cached_tokens / input_tokens, 1.0) if input_tokens else 0.0
    return Shape(
        input_tokens=np.repeat(inputs, len(outputs)),
        output_tokens=np.tile(outputs, len(inputs)),
        cached_tokens=np.repeat(inputs, len(outputs)) * cached_ratio,
        weight=np.outer(input_weight, output_weight).ravel(),
    )


def mix_shapes(shapes: Sequence[Shape], weights: Sequence[float]) -> Shape:
    """The shape of requests drawn from several shapes in proportion to `weights`.

    Raises
    ------
    ValueError
        When nothing has a weight above 0.
    """
    if not sum(weights) > 0:
        raise ValueError("a mixture of shapes needs a weight above 0")
    share = np.array(weights, dtype=np.float64) / sum(weights)
    lengths = np.concatenate(
        [np.stack([s.input_tokens, s.output_tokens, s.cached_tokens]) for s in shapes], axis=1
    )
    weight = np.concatenate([s.weight * w for s, w in zip(shapes, share, strict=True)])
    kept = weight > 0
    return _bucketed(
        lengths[:, kept], weight[kept] / weight[kept].sum(), (INPUT_BUCKETS, OUTPUT_BUCKETS)
    )


def with_reuse(shape: Shape, reuse_ratio: float) -> Shape:
    """The same lengths with another share of prompt tokens cached.

    Buckets keep their proportions to each other, but none has more cached than input tokens; where
    nothing was cached every bucket gets the same share.

    Parameters
    ----------
    reuse_ratio : float
        Share of prompt tokens, 0..1.
    """
    wanted = min(max(reuse_ratio, 0.0), 1.0)
    now = shape.reuse_ratio
    if now == wanted:
        return shape
    cached = shape.cached_tokens * (wanted / now) if now > 0 else shape.input_tokens * wanted
    for _ in range(_MOST_ROUNDS):
        cached = np.minimum(cached, shape.input_tokens)
        missing = wanted * shape.isl_mean - float(cached @ shape.weight)
        room = shape.input_tokens - cached
        if missing <= 1e-9 * shape.isl_mean or not room.any():
            break
        cached = cached + room * min(missing / float(room @ shape.weight), 1.0)
    return replace(shape, cached_tokens=cached)


def with_answers(shape: Shape, answers: Shape) -> Shape:
    """The prompts of one shape with the answers of another.

    Both distributions stay as they are. They go together as in `answers`: a prompt gets the answers
    of its rank among prompts there, told apart in `INPUT_BUCKETS` groups.
    """
    prompts = np.argsort(shape.input_tokens, kind="stable")
    order = np.lexsort((answers.output_tokens, answers.input_tokens))
    group = _rank_cells(answers.weight, order, _levels(INPUT_BUCKETS))
    size = np.bincount(group, answers.weight, INPUT_BUCKETS)
    ends, group_ends = np.cumsum(shape.weight[prompts]), np.cumsum(size)
    starts, group_starts = ends - shape.weight[prompts], group_ends - size
    # (prompts, groups) how much of the ranking each prompt bucket shares with each group.
    shared = np.minimum(ends[:, None], group_ends) - np.maximum(starts[:, None], group_starts)
    weight = np.maximum(shared, 0.0)[:, group] * (answers.weight / size[group])
    row, column = np.nonzero(weight > 0)
    kept = weight[row, column]
    return _bucketed(
        np.stack(
            [
                shape.input_tokens[prompts][row],
                answers.output_tokens[column],
                shape.cached_tokens[prompts][row],
            ]
        ),
        kept / kept.sum(),
        (INPUT_BUCKETS, OUTPUT_BUCKETS),
    )


_MOST_ROUNDS = 4
"""Two suffice: what was cut off is spread over the room that is left, and fits there."""


def _levels(buckets: int) -> Floats:
    """Inner cut levels, finer towards 1: long requests are few but carry most of the work.

    With 8 buckets the last one holds the longest 1.6 %.
    """
    if buckets < 1:
        raise ValueError(f"a shape needs at least 1 bucket a side, got {buckets}")
    return 1.0 - (1.0 - np.arange(1, buckets) / buckets) ** 2


def _bucketed(lengths: Floats, weight: Floats, buckets: tuple[int, int]) -> Shape:
    """Shape of (3, rows) lengths: input, output, cached tokens. `weight` sums to 1."""
    order = np.lexsort((lengths[2], lengths[1], lengths[0]))
    cell = _rank_cells(weight, order, _levels(buckets[0])) * buckets[1]
    output_levels = _levels(buckets[1])
    for start in np.unique(cell):
        rows = np.flatnonzero(cell == start)
        inner = np.lexsort((lengths[2, rows], lengths[0, rows], lengths[1, rows]))
        share = weight[rows] / weight[rows].sum()
        cell[rows] += _rank_cells(share, inner, output_levels)
    _, group = np.unique(cell, return_inverse=True)
    total = np.bincount(group, weight).astype(np.float64)
    inputs, outputs, cached = (_group_means(row, weight, group, total) for row in lengths)
    return Shape(
        input_tokens=inputs,
        output_tokens=outputs,
        cached_tokens=np.minimum(cached, inputs),
        weight=total / total.sum(),
    )


def _group_means(values: Floats, weight: Floats, group: Integers, total: Floats) -> Floats:
    """Weighted mean of each group, within its values: rounding alone may push it past a bound."""
    low, high = np.full(len(total), np.inf), np.full(len(total), -np.inf)
    np.minimum.at(low, group, values)
    np.maximum.at(high, group, values)
    return np.clip(np.bincount(group, weight * values) / total, low, high)


def _rank_cells(weight: Floats, order: Integers, levels: Floats) -> Integers:
    """Group of each row: by the middle of its share of the ranking, rows in `order`."""
    ranked = weight[order]
    middle = np.cumsum(ranked) - ranked / 2
    cells = np.empty(len(order), dtype=np.int64)
    cells[order] = np.searchsorted(levels, middle, side="right")
    return cells


def _lognormal_buckets(mean: float, length_cv: float, buckets: int) -> tuple[Floats, Floats]:
    """Bucket means and weights of 1 + a lognormal of mean `mean - 1`."""
    relative, weight = _lognormal_of_mean_1(length_cv, buckets)
    return 1.0 + max(mean - 1.0, 0.0) * relative, weight


@lru_cache(maxsize=64)
def _lognormal_of_mean_1(length_cv: float, buckets: int) -> tuple[Floats, Floats]:
    """Bucket means and weights of a lognormal of mean 1, the same for every window of totals.

    E[X; a < X <= b] = mean * (Phi(z_b - s) - Phi(z_a - s)) for a lognormal X with log-sd s.
    """
    edges = np.concatenate([[0.0], _levels(buckets), [1.0]])
    weight = np.diff(edges)
    log_sd = np.sqrt(np.log1p(length_cv**2))
    relative = np.diff(ndtr(ndtri(edges) - log_sd)) / weight
    for kept in (relative, weight):
        kept.flags.writeable = False
    return relative, weight
