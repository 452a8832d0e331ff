"""Numbers as people read them: the unit always named, nothing where nothing was observed."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from planner.domain.fleet import Fleet, Role
from planner.domain.plan import PlanWindow
from planner.domain.wording import counted as counted_with_zero
from planner.domain.wording import interval, percent, with_interval

NO_BREAK = "\N{NO-BREAK SPACE}"
"""Between a number and its unit: a line does not end there."""
MISSING = "\N{EN DASH}"
"""Stands where there is no value: nothing arrived, or nothing was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeUnit:
    """A unit for the times of one plot: `name`, and how many of it make a second."""

    name: str
    per_s: float


SECONDS = TimeUnit(name="s", per_s=1.0)
MILLISECONDS = TimeUnit(name="ms", per_s=1000.0)
_FILE = re.compile(r"[^\s:]*[^\s:.]\.[A-Za-z]\w*:?")
"""`windows.json`, with the colon that may follow."""


def time_unit(seconds: Iterable[float]) -> TimeUnit:
    """Milliseconds where every time of a plot is below a second, seconds otherwise."""
    return MILLISECONDS if all(s < 1.0 for s in seconds) else SECONDS


def words(name: str) -> str:
    """A name as people write it: `spot_interruptions` without underscores."""
    return str(name).replace("_", " ")


def duration(seconds: float | None) -> str:
    """Write a time: `38 ms`, `1.27 s`, `214 s`."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 1.0:
        milliseconds = 1000 * seconds
        return _whole(f"{milliseconds:.{1 if milliseconds < 10 else 0}f}", "ms")
    if seconds < 10:
        return f"{seconds:.2f}{NO_BREAK}s"
    return _whole(f"{seconds:,.{1 if seconds < 100 else 0}f}", "s")


def span(seconds: float) -> str:
    """Write a long time in the unit that people say it in: `90 s`, `58 min`, `4 h`, `14 days`."""
    for unit, size_s in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size_s:
            return _whole(f"{seconds / size_s:,.1f}", unit)
    return duration(seconds)


def _whole(number: str, unit: str) -> str:
    """Write `60 s`, not `60.0 s`."""
    return f"{number.removesuffix('.0')}{NO_BREAK}{unit}"


def share(ratio: float | None) -> str:
    """Write a ratio: `95.2%`; what is nearly all or nearly nothing gets more digits."""
    if ratio is None or not math.isfinite(ratio):
        return MISSING
    return percent(ratio)


def between(low: float | None, high: float | None) -> str:
    """Write the interval of a share: `99.4% to 99.8%`, `at least 99.98%`."""
    return MISSING if low is None or high is None else interval(low, high)


def share_between(ratio: float | None, low: float | None, high: float | None) -> str:
    """Write a share and its interval, where it has one: `99.7% (99.4% to 99.8%)`."""
    if ratio is None or low is None or high is None:
        return share(ratio)
    return with_interval(ratio, low, high)


def usd_per_hour(usd: float | None) -> str:
    """Write a cost: `0.060 USD/h`."""
    if usd is None or not math.isfinite(usd):
        return MISSING
    return f"{usd:,.2f}{NO_BREAK}USD/h" if usd >= 10 else f"{usd:.3f}{NO_BREAK}USD/h"


def usd(amount: float | None) -> str:
    """Write an amount of money: `0.042 USD`, `3.20 USD`, `12,481 USD`."""
    if amount is None or not math.isfinite(amount):
        return MISSING
    size = abs(amount)
    figures = 0 if size >= 1000 else 2 if size >= 1 else 3
    return f"{amount:,.{figures}f}{NO_BREAK}USD"


def rate(per_s: float | None, what: str) -> str:
    """Write a rate: `2.31 requests/s`."""
    if per_s is None or not math.isfinite(per_s):
        return MISSING
    return f"{per_s:.2f} {what}/s" if per_s < 100 else f"{per_s:,.0f} {what}/s"


def data(size_bytes: float) -> str:
    """Write an amount of data in decimal units: `12.6 MB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= size:
            return f"{size_bytes / size:,.1f}{NO_BREAK}{unit}"
    return f"{size_bytes:,.0f} bytes"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun: `no step`, `1 step`, `1,204 requests`."""
    if count == 0:
        return f"no {noun}"
    return counted_with_zero(count, noun)


def sentence(text: str) -> str:
    """Begin with a capital letter, end with a full stop."""
    text = text.strip()
    if not text:
        return text
    begun = text if _is_name(text.split(maxsplit=1)[0]) else text[0].upper() + text[1:]
    return begun + ("" if text[-1] in ".!?" else ".")


def _is_name(word: str) -> bool:
    """Whether a word stays as it is: a pool's label (`decode:h100:tp2`), or a file's name."""
    return ":" in word[:-1] or _FILE.fullmatch(word) is not None


def short_fleet(fleet: Fleet | PlanWindow) -> str:
    """Write a fleet the way the field does: `2P1D`, with `1A` for aggregated replicas."""
    letters = ((Role.PREFILL, "P"), (Role.DECODE, "D"), (Role.AGGREGATED, "A"))
    parts = [f"{count}{letter}" for role, letter in letters if (count := fleet.replicas(role))]
    return "".join(parts) or "empty"


def long_fleet(fleet: Fleet | PlanWindow) -> str:
    """Write a fleet in words: `2 prefill + 1 decode`."""
    parts = [f"{count} {role}" for role in Role if (count := fleet.replicas(role))]
    return " + ".join(parts) or "no worker"
