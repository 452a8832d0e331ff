"""The constraints of nodes: no replica spans two of them.

`o` runs over options, `a` over accelerator types, `t` over windows.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from planner.optimize.inputs import AcceleratorLimit
from planner.optimize.linear import LinearModel
from planner.optimize.nodes import blocks_of, divide, rounded_size
from planner.optimize.problem import Problem
from planner.optimize.variables import Variables


def fit_nodes(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every a, size k, t: sum_{o on a} floor(size[o]/k) * replicas[o,t] <= blocks[a,k,t].

    Blocks of k accelerators within one node, less those of replicas of other models in t. Where
    sizes divide each other, which is exact; and where there are too many ways to fill a node,
    with sizes rounded up until they do.

    References
    ----------
    Bin packing with divisible item sizes: Coffman, Garey, Johnson (1987); floor(x / k) is a
    dual feasible function.
    """
    for t, limit in _limits(problem):
        if problem.filled[limit.name] is not None:
            continue
        on = list(problem.on(limit.name))
        sizes, taken = _blocked_on(problem, limit)
        for size in sorted({sizes[o] for o in on} - {1}):
            each = np.array([float(sizes[o] // size) for o in on])
            blocks = blocks_of(limit, size) - sum(other // size for other in taken)
            index = f"{limit.name} by {size}", t
            model.row("fit_nodes", index, (each, v.replicas[on, t]), high=float(blocks))


def fill_nodes(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every a, size k, t: sum_{o on a of k} replicas[o,t] + taken[a,k,t] <= sum_p fits * nodes.

    fits[a,p,k] are the replicas of size k in a node that is filled the way p, nodes[a,p,t] how
    many are; together no more than there are. Where sizes do not divide each other. taken are
    replicas of other models.

    References
    ----------
    The pattern formulation of cutting stock: Gilmore and Gomory, Operations Research 9 (1961).
    """
    for t, limit in _limits(problem):
        kinds = problem.filled[limit.name]
        if kinds is not None:
            columns = [v.nodes[limit.name, i, t] for i in range(len(kinds or ()))]
            for i, kind in enumerate(kinds or ()):
                index = f"{limit.name} nodes {i}", t
                model.row("fill_nodes", index, (1.0, columns[i]), high=float(kind.count))
            for s, size in enumerate(problem.sizes_on(limit.name)):
                on = [o for o in problem.on(limit.name) if problem.options[o].footprint == size]
                room = [
                    (-kind.fits[:, s].astype(np.float64), columns[i])
                    for i, kind in enumerate(kinds or ())
                ]
                taken = float(limit.taken.count(size))
                index = f"{limit.name} by {size}", t
                model.row("fill_nodes", index, (1.0, v.replicas[on, t]), *room, high=-taken)


def _limits(problem: Problem) -> Iterator[tuple[int, AcceleratorLimit]]:
    """What there is of every accelerator type, window by window."""
    for t in problem.window_indices:
        for limit in problem.limits_in(t):
            yield t, limit


def _blocked_on(
    problem: Problem, limit: AcceleratorLimit
) -> tuple[Mapping[int, int], tuple[int, ...]]:
    """Sizes that divide: of each option on an accelerator type, and of other models' replicas.

    They are rounded up where they do not.
    """
    exact = divide(problem.sizes_on(limit.name))

    def blocked(size: int) -> int:
        return size if exact else rounded_size(size, limit.per_node)

    own = {o: blocked(problem.options[o].footprint) for o in problem.on(limit.name)}
    return own, tuple(blocked(size) for size in limit.taken)
