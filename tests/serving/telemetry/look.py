"""Looks at pages in tests: recorded ones, and small ones written in place."""

from pathlib import Path

from serving.telemetry.interval import Interval
from serving.telemetry.page import Page
from serving.telemetry.signals import Source

PAGES = Path(__file__).parent / "pages"
AT_S = 1_000_000.0


def recorded(name: str, *, at_s: float = AT_S) -> Page:
    """A page that stands beside this file."""
    return Page.parse((PAGES / name).read_text(), at_s=at_s, source=name)


def written(text: str, *, at_s: float = AT_S) -> Page:
    """A page written in place."""
    return Page.parse(text, at_s=at_s, source="test")


def since_nothing(name: str, source: Source, *, seconds: float = 10.0) -> Interval:
    """A recorded page as everything that its target did in so many seconds."""
    return Interval(source, Page.of([], at_s=AT_S - seconds), recorded(name))


def histogram_text(name: str, values: list[float], ends: tuple[float, ...]) -> str:
    """A histogram of these values, as a page has it."""
    lines = [f"# TYPE {name} histogram"]
    lines += [f'{name}_bucket{{le="{end}"}} {sum(v <= end for v in values)}' for end in ends]
    lines += [
        f'{name}_bucket{{le="+Inf"}} {len(values)}',
        f"{name}_count {len(values)}",
        f"{name}_sum {sum(values)}",
    ]
    return "\n".join(lines) + "\n"
