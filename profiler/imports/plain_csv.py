"""Tables of one's own: two CSV files, one of prompts and one of decode steps.

    new_tokens,cached_tokens,seconds        one prompt alone: tokens to compute, tokens cached
    sequences,context_tokens,seconds        one decode step: batch, tokens of each sequence so far

In this spelling, in any order of columns, nothing beside them; seconds, not milliseconds; each
combination once. Which file is which is told by its header.
"""

from collections.abc import Sequence
from pathlib import Path

from planner.domain.errors import ProfileError
from profiler.imports.assembly import Imported
from profiler.imports.reading import LONGEST_PROMPT_S, LONGEST_STEP_S, MOST_TOKENS, S, file_time
from profiler.imports.rows import header_of, read_rows
from profiler.imports.tables import Point, decode_table, prefill_table

PREFILL = ("new_tokens", "cached_tokens", "seconds")
DECODE = ("sequences", "context_tokens", "seconds")
WHAT = (
    f"a CSV of prompts ({','.join(PREFILL)}) and one of decode steps ({','.join(DECODE)}), see "
    "docs/profiles.md"
)
MANY_TOKENS, LONGEST_TOKEN_S = 64, 0.1
"""A prompt of many tokens that takes longer for each is in another unit than seconds."""


def read(paths: Sequence[Path]) -> Imported:
    """The profile of two tables.

    Raises
    ------
    ProfileError
        When they are not one of each kind, or a row is wrong; with the line.
    """
    prefill_path, decode_path = _told_apart(paths)
    prompts = _points(prefill_path, PREFILL, LONGEST_PROMPT_S)
    for line, point in prompts.items():
        if point.x >= MANY_TOKENS and point.seconds > LONGEST_TOKEN_S * point.x:
            raise ProfileError(
                f"{prefill_path}:{line}: seconds: {point.seconds:g} s for {point.x:g} tokens: is "
                "it in milliseconds? Divide by 1000"
            )
    steps = _points(decode_path, DECODE, LONGEST_STEP_S)
    prefill, decode = prefill_table(list(prompts.values())), decode_table(list(steps.values()))
    return Imported(
        prefill=prefill.table,
        decode_step=decode.table,
        source=f"{prefill_path.name} and {decode_path.name}",
        machine="not stated by the source",
        engine="not stated by the source",
        measured_at=max(file_time(prefill_path), file_time(decode_path)),
        points=len(prompts) + len(steps),
        held_tokens=int(max(p.x * p.y for p in steps.values())),
        longest_tokens=int(
            max(*(p.x + p.y for p in prompts.values()), *(p.y for p in steps.values()))
        ),
        notes=(
            "first_token_s is 0: what lies between the engine and the client is not in the tables",
            "measured_at is when the files were changed last: they hold no instant",
            *prefill.notes,
            *decode.notes,
        ),
    )


def _told_apart(paths: Sequence[Path]) -> tuple[Path, Path]:
    """The file of prompts and the file of decode steps."""
    kinds: dict[str, Path] = {}
    for path in paths:
        header = header_of(path, what=WHAT)
        kind = next((c[0] for c in (PREFILL, DECODE) if c[0] in header), None)
        if kind is None:
            raise ProfileError(
                f"{path}:1: neither a column {PREFILL[0]} nor {DECODE[0]}; give {WHAT}"
            )
        if kind in kinds:
            raise ProfileError(
                f"{path}: a second table of {kind} beside {kinds[kind]}; one of each"
            )
        kinds[kind] = path
    missing = [c for c in (PREFILL, DECODE) if c[0] not in kinds]
    if missing:
        raise ProfileError(f"no table with columns {','.join(missing[0])}; give {WHAT}")
    return kinds[PREFILL[0]], kinds[DECODE[0]]


def _points(path: Path, columns: Sequence[str], most_s: float) -> dict[int, Point]:
    """Points by line."""
    x_name, y_name, seconds = columns
    found: dict[int, Point] = {}
    lines: dict[tuple[float, float], int] = {}
    for row in read_rows(path, columns, what=WHAT, exactly=True):
        x = row.fields.number(x_name, least=1, most=MOST_TOKENS)
        y = row.fields.number(y_name, least=0, most=MOST_TOKENS)
        if (x, y) in lines:
            raise row.fields.error(
                f"{x_name} {x:g}, {y_name} {y:g}", f"is on line {lines[x, y]} already: keep one"
            )
        lines[x, y] = row.line
        found[row.line] = Point(x=x, y=y, seconds=row.fields.seconds(seconds, S, most_s=most_s))
    return found
