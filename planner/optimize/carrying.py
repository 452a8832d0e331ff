"""Which traffic given capacities can carry, without deciding who sends what where.

The columns `sent` are most of a large model: streams x options x windows. What they ask of the
rest is that the capacities carry the demand, and that is a set of inequalities in the capacities
alone, one for every way to price the streams (`Prices`). Few of them bind, they are found by
asking one window's flow program about given capacities (`FlowSystem.missing`), and each holds in
every window, whatever its demand.

References
----------
Benders, Numerische Mathematik 4 (1962); one subproblem's cuts for all others: Geoffrion and Graves,
Management Science 20 (1974).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, hstack

from planner.domain.fleet import Role
from planner.optimize import scip
from planner.optimize.inputs import Floats, Integers
from planner.optimize.linear import Linear, Mask
from planner.optimize.problem import Problem

_NOTHING = 1e-9
"""Relative: a smaller coefficient of a cut is left out, a smaller violation is none."""

_MORE_TRANSFER = 1e3
"""Times the dearest replica: what exceeding the transfer limit costs in `FlowSystem.missing`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prices:
    """What serving one request of each stream earns.

    Parameters
    ----------
    whole : (streams,) float
        A request that is answered.
    prefill : (streams,) float
        Of that, its prefill; the rest is its decode. An aggregated replica earns all of it.
    transfer : float, at least 0
        The share of the transfer limit that one window may use.
    """

    whole: Floats
    prefill: Floats
    transfer: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traffic:
    """Who can serve whom, in arrays, of streams that share no capacity with others.

    Parameters
    ----------
    streams, options : index arrays into those of the problem
    per_request : (streams, options) float
        Requests of the stream per mean request of the pool's capacity; 0 where it cannot serve it.
    prefill, decode : (options,) bool
    moved : (streams,) float
        Share of the transfer limit that one request/s takes.
    """

    streams: Integers
    options: Integers
    per_request: Floats
    prefill: Mask
    decode: Mask
    moved: Floats

    def earned(self, prices: Prices) -> Floats:
        """(options,) the most that a mean request/s of a pool's capacity earns."""
        whole, prefill = prices.whole[self.streams], prices.prefill[self.streams]
        path = prefill - prices.transfer * self.moved
        each = np.where(
            self.prefill,
            path[:, None],
            np.where(self.decode, (whole - prefill)[:, None], whole[:, None]),
        )
        return np.asarray(np.maximum((each * self.per_request).max(axis=0), 0.0), dtype=np.float64)


def traffic_of(problem: Problem) -> tuple[Traffic, ...]:
    """One for each model, or one of all where a transfer limit joins them."""
    together = problem.transfer_bytes_per_s_limit is not None
    names: Sequence[tuple[str, ...]] = (
        [problem.models] if together else [(name,) for name in problem.models]
    )
    return tuple(_traffic(problem, set(group)) for group in names)


def _traffic(problem: Problem, models: set[str]) -> Traffic:
    streams = np.array([k for k, s in enumerate(problem.streams) if s.model in models])
    options = np.array([o for o, a in enumerate(problem.options) if a.shape.model in models])
    roles = [problem.options[o].shape.role for o in options]
    work = problem.work[np.ix_(streams, options)]
    moved = np.zeros(len(streams))
    if problem.transfer_bytes_per_s_limit is not None and problem.kv_bytes is not None:
        moved = problem.kv_bytes[streams] / problem.transfer_bytes_per_s_limit
    return Traffic(
        streams=streams,
        options=options,
        per_request=np.where(np.isfinite(work), 1.0 / work, 0.0),
        prefill=np.array([role is Role.PREFILL for role in roles]),
        decode=np.array([role is Role.DECODE for role in roles]),
        moved=moved,
    )


class Cuts:
    """Inequalities that capacities which carry the demand satisfy, in every window.

    For every Prices, t: sum_o earned[o] * capacity[o,t] + sum_k whole[k] * shortfall[k,t]
    >= sum_k whole[k] * demand[k,t] - transfer.

    What is sent earns its price, at most `earned` of the pool's capacity for every mean request
    (weak duality); together that is what the demand is worth.
    """

    def __init__(self, problem: Problem) -> None:
        self.traffic = traffic_of(problem)
        self.demand = problem.demand_rps
        self.count = 0
        self.group: list[int] = []
        self.earned = np.zeros((64, len(problem.options)))
        self.whole = np.zeros((64, len(problem.streams)))
        self.least = np.zeros((64, len(problem.windows)))

    def add(self, prices: Prices, *, at: tuple[int, Floats, Floats] | None = None) -> None:
        """A cut for each group of streams, scaled; none where nothing is earned.

        Parameters
        ----------
        at : (t, capacity, shortfall) or None
            Only cuts that these violate in window t, see `missing`.
        """
        for group, traffic in enumerate(self.traffic):
            whole = prices.whole[traffic.streams]
            least = whole @ self.demand[traffic.streams] - prices.transfer
            scale, earned = float(least.max()), traffic.earned(prices)
            if scale <= 0 or not np.isfinite(earned).all() or earned.max(initial=0.0) <= 0:
                continue
            earned[earned < _NOTHING * earned.max()] = 0.0
            if at is not None:
                t, capacity, shortfall = at
                have = earned @ capacity[traffic.options] + whole @ shortfall[traffic.streams]
                if least[t] - have <= _NOTHING * scale:
                    continue
            self._room_for(self.count + 1)
            self.earned[self.count, traffic.options] = earned / scale
            self.whole[self.count, traffic.streams] = whole / scale
            self.least[self.count] = least / scale
            self.group.append(group)
            self.count += 1

    def missing(self, t: int, capacity: Floats, shortfall: Floats) -> Floats:
        """(cuts,) by how much each is violated in window `t`, of its right side; negative: slack.

        Parameters
        ----------
        capacity : (options,) float
        shortfall : (streams,) float
        """
        n = self.count
        have = self.earned[:n] @ capacity + self.whole[:n] @ shortfall
        least = self.least[:n, t]
        return np.asarray((least - have) / np.maximum(np.abs(least), _NOTHING), dtype=np.float64)

    def copy(self) -> "Cuts":
        """The same cuts; what is added to one is not in the other."""
        other = object.__new__(Cuts)
        other.traffic, other.demand, other.count = self.traffic, self.demand, self.count
        other.group = list(self.group)
        other.earned, other.whole = np.array(self.earned), np.array(self.whole)
        other.least = np.array(self.least)
        return other

    def extend(self, other: "Cuts", first: int) -> None:
        """Take over the cuts of another from number `first` on."""
        n, more = self.count, other.count - first
        self._room_for(n + more)
        self.earned[n : n + more] = other.earned[first : other.count]
        self.whole[n : n + more] = other.whole[first : other.count]
        self.least[n : n + more] = other.least[first : other.count]
        self.group.extend(other.group[first:])
        self.count += more

    def of(
        self, group: int, t: int, capacity: Floats, shortfall: Floats
    ) -> tuple[Integers, Floats]:
        """The numbers of a group's cuts (see `traffic`), and by how much each is violated."""
        traffic = self.traffic[group]
        cuts = np.flatnonzero(np.array(self.group, dtype=np.int64) == group)
        earned = self.earned[np.ix_(cuts, traffic.options)]
        whole = self.whole[np.ix_(cuts, traffic.streams)]
        have = earned @ capacity[traffic.options] + whole @ shortfall[traffic.streams]
        least = self.least[cuts, t]
        return cuts, (least - have) / np.maximum(np.abs(least), _NOTHING)

    def _room_for(self, count: int) -> None:
        while count > len(self.earned):
            self.earned = np.vstack([self.earned, np.zeros_like(self.earned)])
            self.whole = np.vstack([self.whole, np.zeros_like(self.whole)])
            self.least = np.vstack([self.least, np.zeros_like(self.least)])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Missing:
    """What capacities lack to carry a window's demand.

    Parameters
    ----------
    usd : float
        What the cheapest fractions of replicas that would do cost; 0: nothing is missing.
    more : (options,) float
        These fractions.
    prices : Prices
        Those of the cut that shows it.
    """

    usd: float
    more: Floats
    prices: Prices


class FlowSystem:
    """The flow rows of a window (demand, decode, capacity, transfer) among some options.

    Parameters
    ----------
    options : index array
        Options that may serve; others are taken as absent.
    streams : index array or None
        Only these are looked at; None: all.
    """

    def __init__(
        self, problem: Problem, options: Integers, streams: Integers | None = None
    ) -> None:
        self.problem = problem
        self.options = options
        looked_at = np.ones(len(problem.streams), dtype=bool)
        if streams is not None:
            looked_at[:] = False
            looked_at[streams] = True
        self.looked_at = looked_at
        work = problem.work[:, options]
        stream, option = np.nonzero(np.isfinite(work) & looked_at[:, None])
        roles = np.array([problem.options[o].shape.role.value for o in options])
        role = roles[option]
        count = len(problem.streams)
        first = np.flatnonzero(role != Role.DECODE.value)
        pair = np.flatnonzero(role != Role.AGGREGATED.value)
        sign = np.where(role[pair] == Role.PREFILL.value, 1.0, -1.0)
        entries = np.arange(len(stream))
        rows = [stream[first], count + stream[pair], 2 * count + option]
        columns = [first, pair, entries]
        values = [np.ones(len(first)), sign, work[stream, option]]
        limit = problem.transfer_bytes_per_s_limit
        self.transfers = limit is not None and problem.kv_bytes is not None
        if limit is not None and problem.kv_bytes is not None:
            moves = np.flatnonzero(role == Role.PREFILL.value)
            rows.append(np.full(len(moves), 2 * count + len(options)))
            columns.append(moves)
            values.append(problem.kv_bytes[stream[moves]] / limit)
        self.stream, self.option = stream, option
        self.matrix = csr_array(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
            shape=(2 * count + len(options) + self.transfers, len(stream)),
        )

    def limits(self, t: int, capacity: Floats, shortfall: Floats) -> tuple[Floats, Floats]:
        """Bounds (rows,) of the flow rows in window `t`."""
        demand = np.where(self.looked_at, self.problem.demand_rps[:, t] - shortfall, 0.0)
        none = np.zeros(len(demand))
        below = np.full(len(self.options) + self.transfers, -np.inf)
        high = np.append(capacity, 1.0) if self.transfers else capacity
        return np.concatenate([demand, none, below]), np.concatenate([demand, none, high])

    def prices(self, duals: Floats) -> Prices:
        """Of the flow rows' duals in a program that minimizes cost."""
        streams = len(self.problem.streams)
        whole, couple = duals[:streams], duals[streams : 2 * streams]
        transfer = max(-float(duals[2 * streams + len(self.options)]), 0.0) if self.transfers else 0
        prefill = whole + couple
        return Prices(whole=whole, prefill=prefill, transfer=float(transfer))

    def missing(
        self, t: int, capacity: Floats, shortfall: Floats, *, each_rps: Floats, usd: Floats
    ) -> Missing:
        """What the capacities of the options lack in window `t`.

        Parameters
        ----------
        capacity, each_rps, usd : (options,) float
            Of the pool as it is, of one more replica, and its price.
        shortfall : (streams,) float
        """
        entries, options = self.matrix.shape[1], len(self.options)
        rows = 2 * len(self.problem.streams) + np.arange(options + self.transfers)
        gives = -np.append(each_rps, 1.0) if self.transfers else -each_rps
        at = rows, np.arange(len(rows))
        more = csr_array((gives, at), shape=(self.matrix.shape[0], len(rows)))
        low, high = self.limits(t, capacity, shortfall)
        columns = entries + len(rows)
        model = Linear(
            matrix=csr_array(hstack([self.matrix, more])),
            low=low,
            high=high,
            lower=np.zeros(columns),
            upper=np.full(columns, np.inf),
            is_rate=np.ones(columns, dtype=bool),
        )
        dear = np.full(int(self.transfers), _MORE_TRANSFER * usd.max(initial=1.0))
        found = scip.relax(model, np.concatenate([np.zeros(entries), usd, dear]))
        if found is None:
            raise ArithmeticError(f"no capacity carries the demand of window {t}")
        return Missing(
            usd=max(found.cost, 0.0),
            more=found.values[entries : entries + options],
            prices=self.prices(found.duals),
        )
