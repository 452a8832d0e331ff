"""Replay a workload in a thread of its own while the caller does something else."""

import asyncio
import threading
from dataclasses import dataclass, field

from planner.domain.errors import MeasurementError
from planner.domain.workload import Workload
from serving.traffic.load import LoadClient, Replay, replay
from serving.traffic.prompts import PromptWriter


@dataclass(slots=True)
class BackgroundReplay:
    """A replay that runs beside its caller.

    Parameters
    ----------
    url, model : str
        Where requests go.
    timeout_s : float
        A request without a complete answer after so long has failed, seconds.
    """

    url: str
    model: str
    workload: Workload
    writer: PromptWriter
    timeout_s: float = 60.0
    sent: int = 0
    answered: int = 0
    _replay: Replay | None = None
    _error: Exception | None = None
    _stop: asyncio.Event | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _running: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to send."""
        self._thread = threading.Thread(target=self._run, name="poolwise-load", daemon=True)
        self._thread.start()
        self._running.wait(timeout=10.0)

    @property
    def finished(self) -> bool:
        """Whether every request that was sent has its answer, and nothing more is sent."""
        return self._thread is not None and not self._thread.is_alive()

    def stop_sending(self) -> None:
        """Send nothing more; what is under way goes on."""
        if self._loop is not None and self._stop is not None and not self.finished:
            self._loop.call_soon_threadsafe(self._stop.set)

    def result(self) -> Replay:
        """Wait for the last answer.

        Raises
        ------
        MeasurementError
            When the replay itself broke (failed requests are inside the Replay).
        """
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout=0.2)
        if self._replay is None:
            raise MeasurementError(f"the replay broke off: {self._error}") from self._error
        return self._replay

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except (OSError, RuntimeError, ValueError) as error:
            self._error = error
        finally:
            self._running.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._running.set()
        client = LoadClient(url=self.url, model=self.model, timeout_s=self.timeout_s)
        try:
            self._replay = await replay(
                client, self.workload, self.writer, stop=self._stop, tick=self._tick
            )
        finally:
            await client.close()

    def _tick(self, sent: int, answered: int) -> None:
        self.sent, self.answered = sent, answered
