"""Files that are there whole or not at all."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from planner.domain.errors import ProfileError


def write_whole_files(contents: Mapping[Path, bytes]) -> None:
    """Write files beside their places, then put all of them in place.

    Raises
    ------
    ProfileError
        When a folder cannot be made or written to; what stood there is left as it was.
    """
    written: dict[Path, Path] = {}
    path = next(iter(contents))
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            written[path] = Path(name)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes private files; a profile is meant to be shared.
            written[path].chmod(0o644)
        for path, unfinished in written.items():
            unfinished.replace(path)
    except OSError as error:
        raise ProfileError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        for unfinished in written.values():
            unfinished.unlink(missing_ok=True)
