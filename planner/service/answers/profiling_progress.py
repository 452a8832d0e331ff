"""How far a measurement is, for people who wait."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from planner.domain.wording import counted
from profiler.measure.session import Progress, Tell


def say(text: str) -> None:
    """Tell people, on standard error."""
    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def shown() -> Iterator[Tell]:
    """Progress on standard error: a bar with the time left, or a line now and then."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    columns = (
        TextColumn("{task.percentage:3.0f} %"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[detail]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0, left="", detail="starting")

        def tell(now: Progress) -> None:
            ratio = now.spent_s / max(now.spent_s + now.left_s, 1e-9)
            bar.update(task, completed=ratio, left=_left(now), detail=_detail(now))

        yield tell


def _lines() -> Tell:
    last = [-1]

    def tell(now: Progress) -> None:
        tenth = int(10 * now.spent_s / max(now.spent_s + now.left_s, 1e-9))
        if tenth != last[0]:
            last[0] = tenth
            say(f"{_left(now)}: {_detail(now)}")

    return tell


def _left(now: Progress) -> str:
    return f"at most {now.left_s:,.0f} s left"


def _detail(now: Progress) -> str:
    doubt = "" if now.doubt_ratio is None else f", in doubt by {now.doubt_ratio:.0%} at most"
    return (
        f"{counted(now.points, 'point')}, {counted(now.samples, 'sample')}{doubt}: {now.next_text}"
    )
