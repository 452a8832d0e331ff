"""Starts a deployment's manager again when it is killed; everything below it ends with it."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from serving.fleet.caretaker import Deaths, RestartLimits


def kept_up(
    line: Sequence[str],
    *,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    limits: RestartLimits | None = None,
) -> int:
    """Run a command until it ends by itself; its exit status.

    Killed by a signal that did not come through here, or out of memory, it is started again after
    growing pauses. It has handled its own errors where it exits with a status: that is passed on.

    Parameters
    ----------
    limits : RestartLimits or None
        After how many deaths it is given up.
    """
    deaths = Deaths(limits or RestartLimits())
    while True:
        with _passing_on(line, environment) as (process, asked_to_end):
            status = process.wait()
        if status >= 0 or asked_to_end():
            return status if status >= 0 else 128 - status
        pause_s = deaths.pause_s(time.monotonic())
        name = signal.Signals(-status).name
        if pause_s is None:
            say(f"the manager was ended by {name} once too often: it is given up")
            return 128 - status
        say(f"the manager was ended by {name}: it is started again in {pause_s:g} s")
        time.sleep(pause_s)


@contextmanager
def _passing_on(
    line: Sequence[str], environment: Mapping[str, str]
) -> Iterator[tuple["subprocess.Popen[bytes]", Callable[[], bool]]]:
    """The command as a process that gets this process's signals to end."""
    # A group of its own: Ctrl-C of a terminal comes once, through here.
    process = subprocess.Popen(line, env=dict(environment), process_group=0)
    asked: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        process.send_signal(number)

    before = {s: signal.signal(s, pass_on) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield process, lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
