"""A small capacity report, made once for all tests: a real forecast, optimizer and twin."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from planner.service.answers.capacity.report import ReportSettings, capacity_report
from planner.service.answers.capacity.seen import seen_in_trace
from planner.service.spec.file import read_spec
from tests.planner.service.examples import write_spec, write_trace

NOW = datetime(2026, 11, 3, 9, 0, tzinfo=UTC)
PRICES = {"on_demand": 1.0, "reserved": 0.6}
ACCELERATORS = [{"name": "cpu", "per_node": 8, "inventory": 4, "usd_per_gpu_hour": PRICES}]
"""So few that four times the requests need more."""


def stopped_clock():
    """A clock on which no time passes: nothing is ever left out."""
    return 0.0


def settings(**changes):
    """Of a quick report without haste."""
    return ReportSettings(**{"now": NOW, "clock": stopped_clock, "quick": True, **changes})


def report_of(folder: Path, *, minutes=5, rate_rps=8.0, spec_changes=None, **changes):
    """A report on a steady trace."""
    spec = write_spec(folder, **{"accelerators": ACCELERATORS, **(spec_changes or {})})
    trace = write_trace(folder / "trace.jsonl", minutes=minutes, rate_rps=rate_rps)
    checked = read_spec(spec)
    seen = seen_in_trace(trace, checked)
    return capacity_report(checked, seen, model="tiny", settings=settings(**changes))


@cache
def small_report():
    """The report that most tests look at."""
    with TemporaryDirectory() as folder:
        return report_of(Path(folder), growth_per_month_ratio=0.1)


class Out:
    """A clock that has run out after so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def __call__(self) -> float:
        self.looks -= 1
        return 0.0 if self.looks >= 0 else 1e6
