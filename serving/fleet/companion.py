"""A command that runs beside a deployment, such as the gate: supervised, and started again."""

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from planner.domain.errors import EngineError
from serving.fleet.caretaker import Deaths, RestartLimits
from serving.workers.processes import (
    GRACE_S,
    MARKER,
    end_supervised,
    fresh_log,
    kill_supervised,
    log_tail,
    spawn_supervised,
)

if TYPE_CHECKING:
    import subprocess

POLL_S = 0.2
LOOK_S = 2.0
"""Between two questions whether it still answers."""


@dataclass(slots=True)
class Companion:
    """Keeps one command running. Use as a context manager.

    Parameters
    ----------
    name : str
        For its log and for people.
    is_up : callable
        Whether it answers.
    environment : mapping
        Of the command, beside the marker of the state directory.
    listener : socket or None
        Where it takes connections. It stays open here, so that what comes while the command is
        started again waits in the kernel instead of being turned away.
    given_up : callable
        Called when it has died too often and is not started again.
    hangs_after_s : float
        It is killed when it has not answered for so long after the first time, seconds: counted
        from the first question that it left without an answer.
    grace_s : float
        When it is ended, what it still does may take so long before it is killed, seconds.
    """

    name: str
    line: list[str]
    state_dir: Path
    is_up: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    listener: socket.socket | None = None
    progress: Callable[[str], None] = lambda _line: None
    given_up: Callable[[], None] = lambda: None
    limits: RestartLimits = field(default_factory=RestartLimits)
    start_timeout_s: float = 60.0
    hangs_after_s: float = 8.0
    grace_s: float = GRACE_S
    _proven: bool = False
    _silent_since_s: float | None = None
    _looked_s: float = 0.0
    _process: "subprocess.Popen[bytes] | None" = None
    _log: Path = field(default_factory=Path)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._start()
        try:
            self._await_up()
        except BaseException:
            self._end()
            raise
        self._proven = True
        self._thread = threading.Thread(
            target=self._watch, name=f"poolwise-{self.name}", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._end()

    @property
    def pid(self) -> int:
        """Process that the command hangs below.

        Raises
        ------
        EngineError
            When it does not run.
        """
        if self._process is None:
            raise EngineError(f"the {self.name} does not run")
        return self._process.pid

    def _start(self) -> None:
        self._log = fresh_log(self.state_dir, self.name)
        self._proven, self._silent_since_s = False, None
        marker = {MARKER: str(self.state_dir.resolve())}
        self._process = spawn_supervised(
            self.line,
            environment={**self.environment, **marker},
            log_path=self._log,
            grace_s=self.grace_s,
            keep_fds=[] if self.listener is None else [self.listener.fileno()],
        )

    def _await_up(self) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        while not self.is_up():
            if not self._runs() or time.monotonic() > deadline:
                raise EngineError(
                    f"the {self.name} did not come up; its whole log is {self._log}",
                    log_tail=log_tail(self._log),
                )
            time.sleep(POLL_S)

    def _watch(self) -> None:
        deaths = Deaths(self.limits)
        while not self._stop.wait(POLL_S):
            if self._runs() and not self._hangs():
                continue
            if self._process is not None and self._runs():
                self.progress(f"the {self.name} hangs: it is killed")
                kill_supervised(self._process)
            pause_s = deaths.pause_s(time.monotonic())
            if pause_s is None:
                self.progress(f"gave up on the {self.name}: look at {self._log}")
                if self.listener is not None:  # else clients would wait for ever
                    self.listener.close()
                self.given_up()
                return
            self.progress(f"the {self.name} died; it is started again")
            if self._stop.wait(pause_s):
                return
            self._end()
            try:
                self._start()
            except EngineError as error:  # counts as a death
                self.progress(f"the {self.name} could not be started: {error}")

    def _hangs(self) -> bool:
        """Whether it has answered once, and not any more for too long."""
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_S:
            return False
        self._looked_s = now_s
        if self.is_up():
            self._proven, self._silent_since_s = True, None
            return False
        if self._proven and self._silent_since_s is None:
            self._silent_since_s = now_s  # the question took a while to fail
        since_s = self._silent_since_s
        return since_s is not None and time.monotonic() - since_s >= self.hangs_after_s

    def _runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _end(self) -> None:
        if self._process is not None:
            end_supervised([self._process], grace_s=self.grace_s)
            self._process = None
