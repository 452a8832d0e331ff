"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from planner.domain.errors import InputError


def check_writable(path: Path, *, option: str, inputs: Sequence[Path] = ()) -> None:
    """Refuse a file that could not be written, before long work is done for it.

    Parameters
    ----------
    inputs : sequence of Path
        Files that are read, or written for another option: none of them may be overwritten.

    Raises
    ------
    InputError
        When its folder is missing or closed to us, or something else stands in its place.
    """
    if any(path.resolve() == other.resolve() for other in inputs):
        raise InputError(f"{option}: {path} is given for something else, too; name another file")
    try:
        if path.is_dir():
            raise InputError(f"{option}: {path} is a folder; name a file")
        if path.exists() and not path.is_file():
            raise InputError(f"{option}: {path} is no plain file; name one that may be replaced")
        folder = path.absolute().parent
        if not folder.is_dir():
            raise InputError(f"{option}: there is no folder {folder}; make it first")
        _unfinished(path).open("xb").close()
    except OSError as error:
        raise InputError(f"{option}: {path} cannot be written: {error.strerror}") from error
    _unfinished(path).unlink()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; it becomes `path` at the end, or vanishes when that fails."""
    unfinished = _unfinished(path)
    try:
        unfinished.open("xb").close()
        yield unfinished
        unfinished.replace(path.resolve())
    finally:
        unfinished.unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    """In the folder of the file itself: only there it can be put in its place at once."""
    return path.resolve().parent / f".poolwise-{os.getpid()}-{abs(hash(path)):x}.part"
