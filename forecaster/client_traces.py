"""Request-level traces drawn from a table of clients."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from forecaster.arrivals import LARGEST_CV, Pace, arrivals
from forecaster.clients import Client, ClientLengths, ClientTable, pooled_lengths
from forecaster.synthesize import MOST_REQUESTS
from planner.domain.errors import TraceError
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.wording import agreed, counted
from planner.domain.workload import Floats, Integers, Workload


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClientTrace:
    """A trace that was drawn, whose it is, and what had to be assumed for it."""

    workload: Workload
    clients: tuple[str, ...]
    remarks: tuple[str, ...]


def synthesize_clients(
    table: ClientTable,
    clients: Sequence[Client],
    *,
    span_s: tuple[float, float],
    start_at: datetime,
    rng: np.random.Generator,
    by_client: bool = False,
) -> ClientTrace:
    """Draw the requests of these clients in `span_s`, seconds of the table.

    Each client's arrivals are a gamma renewal process with its rate and CV of every window,
    carried on from window to window (`arrivals`). Lengths come from the client's histogram at
    that time, else from its nearest one, else from those of all clients. No prefix is shared:
    the tables do not tell.

    Parameters
    ----------
    start_at : datetime
        Instant of `span_s[0]`.
    by_client : bool
        Whether each client is a request class of its own (`client-12`).

    Raises
    ------
    TraceError
        When the span lies outside the table, holds missing windows or too many requests.
    """
    _check(table, clients, span_s)
    lengths = _Lengths(table, rng)
    times, prompts, answers, owner = [], [], [], []
    capped = 0
    for number, client in enumerate(clients):
        pace = _pace(table, client, span_s)
        first, last = table.windows_of(span_s)
        wild = client.arrival_cv[first:last] > LARGEST_CV
        capped += int(np.sum(wild & (pace.rate_rps > 0)))
        at_s = arrivals(pace, rng)
        drawn = lengths.draw(client, at_s)
        times.append(at_s - span_s[0])
        prompts.append(drawn[0])
        answers.append(drawn[1])
        owner.append(np.full(len(at_s), number, dtype=np.int64))
    at = np.concatenate(times)
    order = np.argsort(at, kind="stable")
    names = np.array([f"client-{c.name}" if by_client else DEFAULT_CLASS for c in clients])
    workload = Workload(
        start_at=start_at,
        arrival_offset_s=at[order],
        input_tokens=np.concatenate(prompts)[order],
        output_tokens=np.concatenate(answers)[order],
        cached_tokens=np.zeros(len(at), dtype=np.int64),
        request_class=names[np.concatenate(owner)[order]],
        duration_s=span_s[1] - span_s[0],
    )
    return ClientTrace(
        workload=workload,
        clients=tuple(client.name for client in clients),
        remarks=tuple(_remarks(lengths.sources, capped, len(workload))),
    )


def _check(table: ClientTable, clients: Sequence[Client], span_s: tuple[float, float]) -> None:
    start_s, end_s = span_s
    if not 0 <= start_s < end_s <= table.duration_s:
        raise TraceError(
            f"{table.path}: holds 0 s to {table.duration_s:g} s; {start_s:g} s to {end_s:g} s "
            "does not lie in it"
        )
    first, last = table.windows_of(span_s)
    absent = np.flatnonzero(table.missing[first:last])
    if len(absent):
        known = table.longest_known()
        raise TraceError(
            f"{table.path}: {counted(len(absent), 'window')} between {start_s:g} s and {end_s:g} s "
            f"{agreed(len(absent), 'is', 'are')} "
            f"missing data (all clients at 0), the first from "
            f"{(first + int(absent[0])) * table.window_s:g} s on; the longest time without any is "
            f"{known[0]:g} s to {known[1]:g} s"
        )
    expected = sum(_pace(table, client, span_s).expected_requests for client in clients)
    if expected > MOST_REQUESTS:
        raise TraceError(
            f"{table.path}: that would be about {expected:,.0f} requests, more than "
            f"{MOST_REQUESTS:,}: choose fewer clients or a shorter time"
        )
    if not expected > 0:
        raise TraceError(f"{table.path}: these clients have no request in that time")


def _pace(table: ClientTable, client: Client, span_s: tuple[float, float]) -> Pace:
    first, last = table.windows_of(span_s)
    edges = np.arange(first, last + 1) * table.window_s
    edges[0], edges[-1] = span_s
    return Pace(
        edges_s=edges.astype(np.float64),
        rate_rps=client.rate_rps[first:last],
        arrival_cv=np.minimum(client.arrival_cv[first:last], LARGEST_CV),
    )


class _Lengths:
    """Draws lengths of requests, and counts where they come from."""

    def __init__(self, table: ClientTable, rng: np.random.Generator) -> None:
        self._table = table
        self._rng = rng
        self._pool: list[tuple[ClientLengths, float]] | None = None
        self.sources: Counter[str] = Counter()

    def draw(self, client: Client, at_s: Floats) -> tuple[Integers, Integers]:
        """(requests,) prompt and answer tokens of one client's requests."""
        prompts = np.ones(len(at_s), dtype=np.int64)
        answers = np.ones(len(at_s), dtype=np.int64)
        valid_s = self._table.lengths_window_s
        period = (at_s // valid_s).astype(np.int64)
        for number in np.unique(period).tolist():
            rows = np.flatnonzero(period == number)
            found, own = client.lengths_at((number + 0.5) * valid_s, valid_s)
            self.sources["own" if own else "nearest" if found else "pool"] += len(rows)
            for part, chosen in self._assigned(found, rows):
                prompts[chosen], answers[chosen] = part.draw(len(chosen), self._rng)
        return prompts, answers

    def _assigned(
        self, found: ClientLengths | None, rows: Integers
    ) -> list[tuple[ClientLengths, Integers]]:
        """Which requests get which lengths."""
        if found is not None:
            return [(found, rows)]
        if self._pool is None:
            self._pool = pooled_lengths(self._table)
        shares = [share for _, share in self._pool]
        owner = self._rng.choice(len(shares), size=len(rows), p=shares)
        return [(self._pool[n][0], rows[owner == n]) for n in np.unique(owner).tolist()]


def _remarks(sources: Counter[str], capped: int, requests: int) -> list[str]:
    said = []
    if sources["nearest"]:
        said.append(
            f"{sources['nearest']:,} of {requests:,} requests have the lengths of their client's "
            "nearest published time, as none are published for their own"
        )
    if sources["pool"]:
        said.append(
            f"{sources['pool']:,} of {requests:,} requests have lengths of all clients, as none "
            "are published for theirs"
        )
    if capped:
        said.append(f"{capped} windows of a client have a CV above {LARGEST_CV:g}, taken as that")
    return said
