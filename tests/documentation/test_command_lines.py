"""Every command line of a page is one that `poolwise` knows; pages are run by a test."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from planner.service.cli.main import app
from tests.documentation.test_console_blocks import PAGES as RUN_WITH_THEIR_OUTPUT

ROOT = Path(__file__).resolve().parents[2]
RUN_BY = {
    "README.md": "tests/end_to_end",
    "docs/api.md": "tests/documentation/test_api_page.py",
}
"""Pages whose commands another test runs; of the README those of the demo."""
NOT_RUN = {
    "docs/actuators.md": "a spec, a fleet and a cluster of the reader's own",
    "docs/closed-loop.md": "a trace of the reader's own",
    "docs/dashboard.md": "a server that goes on, and a person who logs in",
    "docs/loop.md": "a server with plans and decisions of its own",
    "docs/optimizer.md": "a spec and a trace of the reader's own; hours of benchmarks",
    "docs/reports.md": "half a minute a report; tests/planner/service/reports makes them",
    "docs/security.md": "certificates and names of the reader's own",
    "docs/serving/fleet.md": "real engines",
    "docs/serving/gate.md": "real engines behind it",
    "docs/store.md": "a PostgreSQL server of the reader's own; tests/planner/service/store has one",
}
"""Pages with commands that no test runs as they stand, and what they need."""
BLOCK = re.compile(r"^```(console|sh|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _pages() -> Iterator[Path]:
    yield ROOT / "README.md"
    yield from sorted(page for page in (ROOT / "docs").rglob("*.md") if "_site" not in page.parts)


def _command_lines(page: Path) -> Iterator[str]:
    """What begins with `poolwise`, in lines of text and of blocks; continued lines as one."""
    yield from re.findall(r"(?<!`)`(poolwise [a-z][^`\n]*)`", page.read_text())
    for language, block in BLOCK.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.removeprefix("$ ").strip()
            asked = line.startswith("$ ") if language == "console" else True
            if asked and command.startswith("poolwise "):
                yield command


LINES = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}: {line[:60]}")
    for page in _pages()
    for line in _command_lines(page)
]


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_is_known_with_all_its_options(line: str) -> None:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>&;")
    lexer.whitespace_split = True
    words = []
    for word in lexer:
        if set(word) <= set("|<>&;…"):
            break
        words.append(word.strip("[]"))
    command, at = typer.main.get_command(app), 1
    while at < len(words) and not words[at].startswith("-"):
        below = getattr(command, "commands", None)  # of a group
        if below is None:
            break
        assert words[at] in below, f"no command {' '.join(words[: at + 1])}"
        command, at = below[words[at]], at + 1
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
    unknown = [
        word
        for word in words[at:]
        if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known
    ]
    assert unknown == []


def test_every_page_with_commands_is_run_or_says_why_not() -> None:
    shown = {str(page.relative_to(ROOT)) for page in _pages() if BLOCK.search(page.read_text())}
    told = {*RUN_WITH_THEIR_OUTPUT, *RUN_BY, *NOT_RUN}
    assert shown - told == set(), "run them in a test, or say here why none does"
    assert told - shown - set(RUN_WITH_THEIR_OUTPUT) == set(), "no commands are shown there"
    assert [path for path in RUN_BY.values() if not (ROOT / path).exists()] == []
