"""Rows of client tables as they are collected, refused ones counted."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from forecaster.clients import LengthHistogram
from forecaster.readers.rows import LONGEST_REQUEST_TOKENS, shown
from planner.domain.workload import Floats

LISTED_REFUSALS = 10
LARGEST_RATE_RPS = 1e6
LARGEST_TABLE_CV = 1e6
LATEST_WINDOW_S = 1e9
SUM_TOLERANCE = 0.01
"""How far the shares of a histogram may be from 1 in all."""

KINDS = (
    "input_tokens",
    "text_tokens",
    "image_tokens",
    "image_count",
    "audio_tokens",
    "audio_count",
    "video_tokens",
    "video_count",
    "output_tokens",
)
"""Kinds of histograms that are used; `reason_ratio` and others are passed over."""


class ClientRows:
    """Rates and histograms by client.

    `rates` holds (start_s, rate_rps, arrival_cv) in order of time for each client, `lengths` the
    histograms by kind for each client and start. Lengths of windows are None until told.
    """

    def __init__(self) -> None:
        self.window_s: float | None = None
        self.lengths_window_s: float | None = None
        self.read = 0
        self.refused = 0
        self.reasons: list[str] = []
        self.rates: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
        self.lengths: dict[tuple[str, float], dict[str, LengthHistogram]] = defaultdict(dict)

    @property
    def all_reasons(self) -> tuple[str, ...]:
        """The first refusals, and how many more there are."""
        more = self.refused - len(self.reasons)
        return (*self.reasons, f"and {more} more rows") if more > 0 else tuple(self.reasons)

    def refuse(self, place: str, why: str, *, rows: int = 1) -> None:
        """Count rows that are not usable."""
        self.read += rows
        self.refused += rows
        if len(self.reasons) < LISTED_REFUSALS:
            self.reasons.append(f"{place}: {why}")

    def add_rate(self, place: str, client: str, window: tuple[float, float, float]) -> None:
        """Take one window of a client: start, rate and CV; or refuse it."""
        start_s, rate_rps, arrival_cv = window
        above = self.rates[client][-1][0] if self.rates[client] else -np.inf
        problem = ""
        if not 0 <= start_s <= LATEST_WINDOW_S:
            problem = f"the window's start must lie between 0 and {LATEST_WINDOW_S:g} s"
        elif not 0 <= rate_rps <= LARGEST_RATE_RPS:
            problem = f"rate must lie between 0 and {LARGEST_RATE_RPS:g}/s, got {rate_rps:g}"
        elif not 0 <= arrival_cv <= LARGEST_TABLE_CV:
            problem = f"cv must lie between 0 and {LARGEST_TABLE_CV:g}, got {arrival_cv:g}"
        elif start_s <= above:
            problem = f"the window at {start_s:g} s of client {client} is not after {above:g} s"
        if problem:
            self.refuse(place, problem)
            return
        self.read += 1
        self.rates[client].append((start_s, rate_rps, arrival_cv))

    def add_lengths(
        self, place: str, key: tuple[str, float], kind: str, bins: tuple[Floats, Floats]
    ) -> None:
        """Take one histogram (tokens, shares), or refuse it."""
        tokens, share = bins
        problem = _problem(tokens, share)
        if kind in self.lengths[key]:
            problem = f"{kind} of client {key[0]} at {key[1]:g} s is given twice"
        if problem:
            self.refuse(place, problem, rows=max(len(tokens), 1))
            return
        self.read += len(tokens)
        order = np.argsort(tokens)
        self.lengths[key][kind] = LengthHistogram(
            tokens=tokens[order].astype(np.int64), weight=share[order] / share.sum()
        )


def _problem(tokens: Floats, share: Floats) -> str:
    if not bool(np.all((tokens >= 0) & (tokens <= LONGEST_REQUEST_TOKENS))):
        return f"lengths must lie between 0 and {LONGEST_REQUEST_TOKENS}"
    if not bool(np.all(tokens == np.rint(tokens))) or len(np.unique(tokens)) != len(tokens):
        return "lengths must be whole numbers, each once"
    if not bool(np.all((share >= 0) & (share <= 1 + SUM_TOLERANCE))):
        return "shares must lie between 0 and 1"
    if abs(float(share.sum()) - 1.0) > SUM_TOLERANCE:
        return f"shares must sum to 1, these sum to {share.sum():.3g}"
    return ""


def bins_of(pairs: Iterable[tuple[str, str]]) -> tuple[Floats, Floats]:
    """Tokens and shares from text; a ValueError says what is no number."""
    tokens, share = [], []
    for length, value in pairs:
        try:
            tokens.append(float(length))
            share.append(float(value))
        except ValueError as error:
            raise ValueError(f"not a length and a share: {shown(f'{length}: {value}')}") from error
    return np.array(tokens), np.array(share)
