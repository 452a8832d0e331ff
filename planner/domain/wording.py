"""How numbers stand in sentences: counts with their noun, shares and their intervals."""

import math

_MOST_DIGITS = 3
"""Of a percentage, behind the point."""
_NOISE_RATIO = 1e-9
"""Closer to all of it than this is all of it."""


def counted(count: float, noun: str, plural: str = "") -> str:
    """Write a count with its noun: `0 steps`, `1 step`, `1,204 requests`, `2 entries`.

    Parameters
    ----------
    count : float
        A whole number.
    plural : str
        Of the noun; empty: the noun and an s.
    """
    return f"{count:,.0f} {noun if count == 1 else plural or noun + 's'}"


def percent(ratio: float) -> str:
    """Write a share, 0..1: `95.2%`; what is nearly all or nearly nothing is not written as that.

    `100.0%` and `0.0%` are all and nothing; in between digits are added, three at the most, until
    the figure says so: `99.97%`, `0.004%`.
    """
    missing = abs(1.0 - ratio)
    if 0.0 < missing <= _NOISE_RATIO:
        return f"{1.0:.1%}"
    for digits in range(1, _MOST_DIGITS + 1):
        text = f"{ratio:.{digits}%}"
        if missing == 0.0 or ratio == 0.0 or float(text[:-1]) not in (0.0, 100.0):
            return text
    if missing < 0.5:
        return text if ratio > 1.0 else _down(ratio, _MOST_DIGITS)
    return f"{0.0:.1%}"


def interval(low: float, high: float) -> str:
    """Write an interval of a share, 0..1, so that its ends differ: `99.4% to 99.8%`.

    One that ends at all or at nothing has one bound, which is rounded away from there: `at least
    99.98%`, `at most 0.02%`.
    """
    if low >= high:
        return percent(low)
    if high >= 1.0 and low <= 0.0:
        return "anything"
    if high >= 1.0:
        return f"at least {_down(low, _digits(1.0 - low))}"
    if low <= 0.0:
        digits = _digits(high)
        return f"at most {math.ceil(high * 100 * 10**digits - 1e-6) / 10**digits:.{digits}f}%"
    for digits in range(1, _MOST_DIGITS + 1):
        ends = f"{low:.{digits}%}", f"{high:.{digits}%}"
        if ends[0] != ends[1] and ends[0] != "0.0%" and ends[1] != "100.0%":
            break
    return f"{ends[0]} to {ends[1]}"


def with_interval(ratio: float, low: float | None, high: float | None) -> str:
    """Write a share and its interval: `99.7% (99.4% to 99.8%)`, `100.0% (at least 99.98%)`."""
    if low is None or high is None:
        return percent(ratio)
    return f"{percent(ratio)} ({interval(low, high)})"


def _digits(ratio: float) -> int:
    """So many that a share this far from an end differs from it."""
    return 1 if ratio > 0.001 else 2 if ratio > 0.0001 else _MOST_DIGITS


def _down(ratio: float, digits: int) -> str:
    return f"{math.floor(ratio * 100 * 10**digits + 1e-6) / 10**digits:.{digits}f}%"
