"""Load of one shape at a steady rate, from a thread of its own."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from serving.traffic.load import Completion, LoadClient, Timing
from serving.traffic.prompts import PromptWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadShape:
    """Requests alike.

    Parameters
    ----------
    rate_rps : float
        Sent evenly, whatever is answered.
    shared_tokens : int
        Leading tokens of the prompt that all requests share.
    """

    rate_rps: float
    prompt_tokens: int
    answer_tokens: int
    shared_tokens: int = 0


@dataclass(slots=True)
class SteadyLoad:
    """Sends until it is stopped, then waits for the answers.

    Parameters
    ----------
    answers : list of Timing
        Complete once the load has ended.
    """

    url: str
    model: str
    shape: LoadShape
    writer: PromptWriter
    timeout_s: float = 120.0
    answers: list[Timing] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Send until stopped; for a thread."""
        asyncio.run(self._send())

    def stop(self) -> None:
        """Send nothing more."""
        self._stop.set()

    async def _send(self) -> None:
        client = LoadClient(url=self.url, model=self.model, timeout_s=self.timeout_s)
        tasks: list[asyncio.Task[Timing]] = []
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            while not self._stop.is_set():
                tasks.append(asyncio.create_task(client.send(self._request(len(tasks)))))
                due = began + len(tasks) / self.shape.rate_rps
                while (left := due - loop.time()) > 0 and not self._stop.is_set():
                    await asyncio.sleep(min(left, 0.2))
            self.answers += await asyncio.gather(*tasks)
        finally:
            await client.close()

    def _request(self, number: int) -> Completion:
        shape = self.shape
        prompt = (
            self.writer.with_prefix(
                shape.shared_tokens, shape.prompt_tokens, prefix=0, number=number
            )
            if shape.shared_tokens
            else self.writer.unique(shape.prompt_tokens, number=number)
        )
        return Completion(prompt=prompt, output_tokens=shape.answer_tokens)


@contextmanager
def steady_load(load: SteadyLoad) -> Iterator[SteadyLoad]:
    """Send while the block runs; leaving it waits for every answer."""
    thread = threading.Thread(target=load.run, name="steady-load", daemon=True)
    thread.start()
    try:
        yield load
    finally:
        load.stop()
        thread.join()
