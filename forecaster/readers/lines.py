"""A file line by line, whatever it holds; gzip is undone on the way."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from gzip import BadGzipFile, GzipFile
from pathlib import Path
from typing import BinaryIO, NamedTuple

from planner.domain.errors import TraceError

LONGEST_LINE_BYTES = 1 << 20
"""A request of 10 M tokens lists 20 k block ids, about 200 kB."""

_MOST_SKIPPED_PIECES = 64
"""A line of 64 MiB is no row gone wrong: the file, or device, is no text at all."""

_GZIP = b"\x1f\x8b"


class Line(NamedTuple):
    """One line that is not blank.

    `text` is None when it could not be read, and `problem` says why. `cut_off` marks a last line
    without a line end: complete in some files, half a row in a file that was cut.
    """

    number: int
    text: str | None
    problem: str
    cut_off: bool


@contextmanager
def open_trace(path: Path) -> Iterator[BinaryIO | GzipFile]:
    """The file, opened for reading; a gzip file (told by its first bytes) as its content.

    Raises
    ------
    TraceError
        When there is no such file, it is a folder, or it may not be read.
    """
    try:
        file = path.open("rb")
        zipped = file.peek(2)[:2] == _GZIP
    except FileNotFoundError as error:
        raise TraceError(f"{path}: there is no such trace file; check the path") from error
    except IsADirectoryError as error:
        raise TraceError(f"{path}: this is a folder; name one trace file in it") from error
    except (OSError, ValueError) as error:
        raise TraceError(f"{path}: the trace file cannot be opened: {error}") from error
    with file:
        yield GzipFile(fileobj=file, mode="rb") if zipped else file


def read_lines(file: BinaryIO | GzipFile, path: Path) -> Iterator[Line]:
    """The lines that are not blank, counted from 1 over all lines.

    Raises
    ------
    TraceError
        When the disk or the network gives up half-way, a gzip file is damaged, or a line does
        not end.
    """
    number = 0
    while True:
        number += 1
        try:
            raw = file.readline(LONGEST_LINE_BYTES)
            too_long = len(raw) == LONGEST_LINE_BYTES and not raw.endswith(b"\n")
            ended = _skip_line(file) if too_long else True
        except (EOFError, BadGzipFile, zlib.error) as error:
            raise TraceError(
                f"{path}:{number}: the gzip file is cut off or damaged here ({error}); copy it "
                "again, or unpack what is left of it (zcat) and read that"
            ) from error
        except OSError as error:
            raise TraceError(f"{path}:{number}: reading failed: {error}") from error
        if not ended:
            raise TraceError(
                f"{path}:{number}: a line without end ({_MOST_SKIPPED_PIECES} MiB and more); "
                "this is no trace file"
            )
        if not raw:
            return
        if too_long:
            yield Line(number, None, f"line is longer than {LONGEST_LINE_BYTES} bytes", False)
            continue
        line = _decoded(number, raw)
        if line.text is None or line.text:
            yield line


def _decoded(number: int, raw: bytes) -> Line:
    cut_off = not raw.endswith(b"\n")
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
    except UnicodeDecodeError:
        return Line(number, None, "not a line of text (UTF-8)", cut_off)
    return Line(number, text, "", cut_off)


def _skip_line(file: BinaryIO | GzipFile) -> bool:
    """Read on to the end of the line; False when it does not come."""
    for _ in range(_MOST_SKIPPED_PIECES):
        rest = file.readline(LONGEST_LINE_BYTES)
        if not rest or rest.endswith(b"\n"):
            return True
    return False
