"""Clients of a service, each with its own rate, burstiness and lengths over time.

The form in which ServeGen was published: no request is listed, but what each client's requests
were like in every window.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from forecaster.shapes import mix_shapes
from planner.domain.errors import TraceError
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.workload import Flags, Floats, Integers, ObservedWindow, Shape

_SHAPE_BINS = 24
"""Groups a histogram is cut into before a shape is made of it; a shape has 8 x 5 buckets."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LengthHistogram:
    """How often each length occurs.

    Parameters
    ----------
    tokens : (bins,) int
        Increasing, at least 0.
    weight : (bins,) float
        Share of requests, sums to 1.
    """

    tokens: Integers
    weight: Floats

    @property
    def mean(self) -> float:
        """Mean, tokens."""
        return float(self.tokens @ self.weight)

    def at(self, levels: Floats) -> Integers:
        """The lengths at these levels of the distribution, 0..1."""
        cumulative = np.cumsum(self.weight)
        place = np.searchsorted(cumulative, levels * cumulative[-1], side="right")
        found: Integers = self.tokens[np.minimum(place, len(self.tokens) - 1)]
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LengthPart:
    """One part of a prompt, such as its images: `count` pieces of `tokens` each (None: one)."""

    tokens: LengthHistogram
    count: LengthHistogram | None = None

    @property
    def mean(self) -> float:
        """Mean, tokens."""
        return self.tokens.mean * (1.0 if self.count is None else self.count.mean)

    def draw(self, requests: int, rng: np.random.Generator) -> Integers:
        """(requests,) tokens of this part."""
        if self.count is None:
            return self.tokens.at(rng.random(requests))
        counts = self.count.at(rng.random(requests))
        pieces = self.tokens.at(rng.random(int(counts.sum())))
        ends = np.cumsum(counts)
        total = np.concatenate([[0], np.cumsum(pieces)])
        drawn: Integers = total[ends] - total[ends - counts]
        return drawn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClientLengths:
    """Lengths of one client's requests from `start_s` on.

    Parameters
    ----------
    prompt : tuple of LengthPart
        Parts that add up to the prompt (text and images).
    answer : LengthHistogram
    """

    start_s: float
    prompt: tuple[LengthPart, ...]
    answer: LengthHistogram

    @property
    def isl(self) -> float:
        """Mean prompt, tokens, at least 1."""
        return max(sum(part.mean for part in self.prompt), 1.0)

    @property
    def osl(self) -> float:
        """Mean answer, tokens, at least 1."""
        return max(self.answer.mean, 1.0)

    def draw(self, requests: int, rng: np.random.Generator) -> tuple[Integers, Integers]:
        """(requests,) prompt and answer lengths, independent, at least 1 token."""
        prompts = np.zeros(requests, dtype=np.int64)
        for part in self.prompt:
            prompts += part.draw(requests, rng)
        answers = self.answer.at(rng.random(requests))
        return np.maximum(prompts, 1), np.maximum(answers, 1)

    def shape(self) -> Shape:
        """Joint lengths; the parts of the prompt, prompt and answer are taken as independent."""
        levels = (np.arange(_SHAPE_BINS) + 0.5) / _SHAPE_BINS
        rng = np.random.default_rng(0)
        parts = [part.draw(4096, rng) for part in self.prompt]
        prompts = np.quantile(np.sum(parts, axis=0), levels)
        prompts = np.maximum(prompts * self.isl / max(prompts.mean(), 1.0), 1.0)
        answers = np.maximum(self.answer.at(levels).astype(np.float64), 1.0)
        answers = np.maximum(answers * self.osl / answers.mean(), 1.0)
        count = _SHAPE_BINS**2
        return Shape(
            input_tokens=np.repeat(prompts, _SHAPE_BINS),
            output_tokens=np.tile(answers, _SHAPE_BINS),
            cached_tokens=np.zeros(count),
            weight=np.full(count, 1.0 / count),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Client:
    """One client.

    Parameters
    ----------
    rate_rps, arrival_cv : (windows,) float
        Requests/s, 0 where it was silent, and the CV of its gaps.
    lengths : tuple of ClientLengths
        In order of time; empty where none were published.
    """

    name: str
    rate_rps: Floats
    arrival_cv: Floats
    lengths: tuple[ClientLengths, ...]

    def lengths_at(self, at_s: float, valid_s: float) -> tuple[ClientLengths | None, bool]:
        """The lengths at an instant or nearest to it, and whether they are of that instant."""
        if not self.lengths:
            return None, False
        nearest = min(self.lengths, key=lambda known: _away_s(known.start_s, valid_s, at_s))
        return nearest, _away_s(nearest.start_s, valid_s, at_s) == 0


def _away_s(start_s: float, length_s: float, at_s: float) -> float:
    """How far an instant lies outside [start, start + length)."""
    if at_s < start_s:
        return start_s - at_s
    return 0.0 if at_s < start_s + length_s else at_s - start_s - length_s + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientReport:
    """What a reader of client tables met.

    Parameters
    ----------
    rows_read, rows_refused : int
        Rows of rates and of length histograms together.
    reasons : tuple of str
        The first refusals, with their rows; the last entry counts the ones not listed.
    """

    rows_read: int
    rows_refused: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClientTable:
    """All clients of a service over the same windows.

    Parameters
    ----------
    window_s, lengths_window_s : float
        Length of a window of rates, and of one of length histograms, seconds.
    missing : (windows,) bool
        Windows in which no client has a request: no data, which is not zero traffic.
    """

    path: Path
    window_s: float
    lengths_window_s: float
    missing: Flags
    clients: tuple[Client, ...]
    report: ClientReport

    @property
    def duration_s(self) -> float:
        """From the start of the first window to the end of the last, seconds."""
        return len(self.missing) * self.window_s

    @property
    def rate_rps(self) -> Floats:
        """(windows,) requests/s of all clients; NaN where data is missing."""
        total = np.sum([client.rate_rps for client in self.clients], axis=0)
        return np.where(self.missing, np.nan, total)

    def windows_of(self, span_s: tuple[float, float]) -> tuple[int, int]:
        """The windows that a time touches: first, and one after the last."""
        return int(span_s[0] // self.window_s), math.ceil(span_s[1] / self.window_s)

    def named(self, names: Sequence[str]) -> tuple[Client, ...]:
        """Clients by name, each once.

        Raises
        ------
        TraceError
            When there is none of that name.
        """
        by_name = {client.name: client for client in self.clients}
        absent = [name for name in names if name not in by_name]
        if absent:
            some = ", ".join(list(by_name)[:5])
            raise TraceError(
                f"{self.path}: there is no client {', '.join(absent)}; it has {len(by_name)}: "
                f"{some}, ..."
            )
        return tuple(by_name[name] for name in dict.fromkeys(names))

    def longest_known(self) -> tuple[float, float]:
        """The longest time without missing windows: start and end, seconds."""
        edges = np.flatnonzero(np.diff(np.concatenate([[True], self.missing, [True]])))
        starts, ends = edges[::2], edges[1::2]
        best = int(np.argmax(ends - starts))
        return float(starts[best]) * self.window_s, float(ends[best]) * self.window_s


def choose_clients(
    table: ClientTable, count: int, *, span_s: tuple[float, float], rng: np.random.Generator
) -> tuple[Client, ...]:
    """Choose clients at random, each with the same chance, of those active in `span_s`.

    The way to scale a service down: dropping single requests instead would make every client's
    arrivals smoother than they were.

    Raises
    ------
    TraceError
        When fewer clients are active.
    """
    first, last = table.windows_of(span_s)
    active = [client for client in table.clients if client.rate_rps[first:last].sum() > 0]
    if not 1 <= count <= len(active):
        raise TraceError(
            f"{table.path}: {len(active)} clients have requests in that time, {count} were asked "
            "for"
        )
    chosen = sorted(rng.choice(len(active), size=count, replace=False).tolist())
    return tuple(active[index] for index in chosen)


def observed_windows(
    table: ClientTable,
    *,
    start_at: datetime,
    clients: Sequence[Client] | None = None,
    by_client: bool = False,
    shapes: bool = True,
) -> tuple[ObservedWindow, ...]:
    """What arrived in each window, in order of time, then of class.

    Missing windows are left out. A client without lengths of its own gets those of all clients;
    prefix reuse is not known and taken as 0.

    Parameters
    ----------
    start_at : datetime
        Instant of the table's time 0.
    by_client : bool
        Whether each client is a request class of its own; else all are `default`.
    shapes : bool
        Whether joint lengths are made too, which takes most of the time.
    """
    chosen = table.clients if clients is None else tuple(clients)
    known = _KnownLengths(table, shapes=shapes)
    windows: list[ObservedWindow] = []
    for index in np.flatnonzero(~table.missing).tolist():
        at = start_at + timedelta(seconds=index * table.window_s)
        groups = [(client.name, [client]) for client in chosen]
        for name, members in groups if by_client else [(DEFAULT_CLASS, chosen)]:
            parts = [
                (known.of(client, index * table.window_s), count)
                for client in members
                if (count := float(client.rate_rps[index]) * table.window_s) > 0
            ]
            windows.append(_observed(at, table.window_s, name, parts))
    return tuple(windows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Summary:
    isl: float
    osl: float
    shape: Shape | None


class _KnownLengths:
    """Lengths of every client at every instant, with those of all clients for who has none."""

    def __init__(self, table: ClientTable, *, shapes: bool) -> None:
        self._table = table
        self._shapes = shapes
        self._summaries: dict[int, _Summary] = {}
        self._all: _Summary | None = None

    def of(self, client: Client, at_s: float) -> _Summary:
        found, _ = client.lengths_at(at_s, self._table.lengths_window_s)
        return self._of_all() if found is None else self._summary(found)

    def _summary(self, lengths: ClientLengths) -> _Summary:
        if id(lengths) not in self._summaries:
            shape = mix_shapes([lengths.shape()], [1.0]) if self._shapes else None
            self._summaries[id(lengths)] = _Summary(isl=lengths.isl, osl=lengths.osl, shape=shape)
        return self._summaries[id(lengths)]

    def _of_all(self) -> _Summary:
        if self._all is None:
            pool = pooled_lengths(self._table)
            self._all = _mixture([(self._summary(lengths), share) for lengths, share in pool])
        return self._all


def _mixture(parts: Sequence[tuple[_Summary, float]]) -> _Summary:
    total = sum(weight for _, weight in parts)
    known = [(summary.shape, weight) for summary, weight in parts if summary.shape is not None]
    return _Summary(
        isl=sum(summary.isl * weight for summary, weight in parts) / total,
        osl=sum(summary.osl * weight for summary, weight in parts) / total,
        shape=mix_shapes([shape for shape, _ in known], [w for _, w in known]) if known else None,
    )


def pooled_lengths(table: ClientTable) -> list[tuple[ClientLengths, float]]:
    """All clients' lengths with the share of requests that they stand for.

    Raises
    ------
    TraceError
        When no client has any.
    """
    found = [
        (lengths, float(client.rate_rps[first:last].sum()))
        for client in table.clients
        for lengths in client.lengths
        for first, last in [
            table.windows_of((lengths.start_s, lengths.start_s + table.lengths_window_s))
        ]
    ]
    total = sum(weight for _, weight in found)
    if not total > 0:
        raise TraceError(f"{table.path}: no client has length histograms for its requests")
    return [(lengths, weight / total) for lengths, weight in found if weight > 0]


def _observed(
    at: datetime, window_s: float, request_class: str, parts: Sequence[tuple[_Summary, float]]
) -> ObservedWindow:
    """A window of requests with these lengths, in these numbers."""
    requests = round(sum(count for _, count in parts))
    mixture = _mixture(parts) if requests else None
    return ObservedWindow(
        start_at=at,
        window_s=window_s,
        requests=requests,
        input_tokens=0 if mixture is None else round(requests * mixture.isl),
        output_tokens=0 if mixture is None else round(requests * mixture.osl),
        cached_tokens=0,
        request_class=request_class,
        shape=None if mixture is None else mixture.shape,
    )
