"""Show the demo while it runs: a bar and a table on a terminal, plain lines elsewhere."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table


@dataclass(slots=True)
class Stage:
    """One stage under way."""

    console: Console
    bar: Progress | None
    task: TaskID | None
    _last: str = ""

    def at(self, ratio: float, text: str) -> None:
        """Show how far it is, 0..1, and what it does."""
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=min(max(ratio, 0.0), 1.0), detail=text)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if text != self._last:
            self._last = text
            self.console.print(f"    {text}", highlight=False, markup=False, soft_wrap=True)


@dataclass(slots=True)
class Display:
    """Progress for people, on standard error or output as the console was made."""

    console: Console = field(default_factory=Console)

    @contextmanager
    def stage(self, letter: str, title: str) -> Iterator[Stage]:
        """Announce a stage, with a bar while it runs."""
        self.console.print(f"[bold cyan]({letter})[/] [bold]{title}[/]", highlight=False)
        if not self.console.is_terminal:
            yield Stage(self.console, None, None)
            return
        columns = (
            TextColumn("   "),
            SpinnerColumn(),
            BarColumn(bar_width=28),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}"),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(title, total=1.0, detail="")
            yield Stage(self.console, bar, task)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a small table; the first column holds names."""
        table = Table(box=None, padding=(0, 2), show_edge=False)
        for i, heading in enumerate(headings):
            table.add_column(heading, justify="left" if i == 0 else "right")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
