"""What a start consisted of, by the engine's own log; and starts from a cold disk."""

import os
import re
from pathlib import Path

from planner.domain.profile_details import StartUp

_WEIGHTS = re.compile(r"Loading weights took ([\d.]+) sec")
_MODEL = re.compile(r"Model loading took .*? and ([\d.]+) sec")
_COMPILE = re.compile(r"torch\.compile(?:\s+\w+)* (?:takes?|took) ([\d.]+) s")
_INIT = re.compile(r"init engine \(profile, create kv cache, warmup model\) took ([\d.]+) s")


def start_up_of(log: str, total_s: float) -> StartUp:
    """Split a start by vLLM's log lines (0.32): what it does not say stays None.

    The engine counts compiling as a part of its warm-up; here they are apart.
    """
    load_s = _last(_MODEL, log) or _last(_WEIGHTS, log)
    compile_s = _last(_COMPILE, log)
    init_s = _last(_INIT, log)
    warm_up_s = None if init_s is None else max(init_s - (compile_s or 0.0), 0.0)
    return StartUp(total_s=total_s, load_s=load_s, compile_s=compile_s, warm_up_s=warm_up_s)


def _last(pattern: re.Pattern[str], text: str) -> float | None:
    found = pattern.findall(text)
    return float(found[-1]) if found else None


def forget_files(directory: Path) -> int:
    """Take a model's files out of the page cache, so that the next start reads them from disk.

    Returns
    -------
    int
        Bytes that were dropped; 0 where the system cannot.
    """
    dropped = 0
    advise = getattr(os, "posix_fadvise", None)
    if advise is None:
        return 0
    for path in sorted(directory.rglob("*")):
        if not path.is_file():
            continue
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:  # not ours to read: then it is not dropped
            continue
        try:
            os.fsync(descriptor)
            advise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            dropped += path.stat().st_size
        except OSError:
            continue
        finally:
            os.close(descriptor)
    return dropped
