"""The tables: every policy's curve, and its cheapest point at each level beside foresight's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.closed_loop.policies import FORESIGHT
from benchmarks.closed_loop.settings import Setting
from benchmarks.closed_loop.workloads import Case, workload_of
from planner.autoscale.backtest import Figures, frontier
from planner.domain.errors import InputError

LEVELS = (0.95, 0.975, 0.99)
"""Of the attainable requests."""
SIMULATED_BY = {"mocker": "NVIDIA's simulator", "twin": "our twin"}
BEGIN, END = "<!-- begin: made by make bench-closed-loop -->", "<!-- end -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run of a policy."""

    family: str
    text: str
    figures: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """All runs of one setting and workload in one simulator."""

    setting: Setting
    case: Case
    simulator: str
    points: tuple[Point, ...]

    def curve(self, family: str) -> list[Point]:
        """Its points that no other one of its own beats, from the cheapest on."""
        own = [p for p in self.points if p.family == family]
        at = [(p.figures.attainable_ratio, p.figures.accelerator_hours) for p in own]
        return [own[i] for i in frontier(at)]

    def hours_at(self, family: str, level: float) -> float | None:
        """Of its cheapest point that attains so much; None: none does."""
        reached = (p for p in self.curve(family) if p.figures.attainable_ratio >= level)
        return min((p.figures.accelerator_hours for p in reached), default=None)

    @property
    def families(self) -> list[str]:
        """In the order in which they were run."""
        return list(dict.fromkeys(p.family for p in self.points))


def document(sections: Sequence[Section]) -> str:
    """All tables."""
    return "\n".join(line for section in sections for line in _section(section))


def write(path: Path, text: str) -> None:
    """Put the tables between the marks of a document.

    Raises
    ------
    InputError
        When it has no such marks.
    """
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{path} has no lines `{BEGIN}` and `{END}` to put the tables between")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def _section(section: Section) -> Iterator[str]:
    setting, case = section.setting, section.case
    requests = len(workload_of(case.name))
    yield f"### {case.name}, {setting.name}, {SIMULATED_BY[section.simulator]}\n"
    yield f"{case.what[0].upper()}{case.what[1:]}: {requests:,} requests.\n"
    levels = " | ".join(f"h at {100 * level:g} %" for level in LEVELS)
    curve = "attainment of all / of attainable requests @ accelerator-hours"
    yield f"| policy | {curve} | {levels} | longest decision |"
    yield "|---|---|" + "---|" * len(LEVELS) + "---|"
    for family in section.families:
        curve = "; ".join(_point(p) for p in section.curve(family))
        cells = " | ".join(_cell(section, family, level) for level in LEVELS)
        yield f"| {family} | {curve} | {cells} | {_decided(section, family)} |"
    yield ""


def _decided(section: Section, family: str) -> str:
    """Processor seconds of the longest decision of all its runs."""
    most_s = max(p.figures.most_decided_s for p in section.points if p.family == family)
    return f"{most_s:.2f} s" if most_s >= 0.005 else "-"


def _point(point: Point) -> str:
    found = point.figures
    return (
        f"{100 * found.attainment_ratio:.1f} / {100 * found.attainable_ratio:.1f} @ "
        f"{found.accelerator_hours:.1f} ({point.text})"
    )


def _cell(section: Section, family: str, level: float) -> str:
    hours, best = section.hours_at(family, level), section.hours_at(FORESIGHT, level)
    if hours is None:
        return "not reached"
    if best is None or family == FORESIGHT:
        return f"{hours:.1f}"
    return f"{hours:.1f} ({hours / best:.2f}x)"
