"""Send measuring requests through all that a server may answer instead of tokens."""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from planner.domain.errors import MeasurementError
from profiler.measure.facts import API_KEY
from serving.traffic.load import NO_COMPLETION, Completion, LoadClient, Timing

PATIENCE_S = 90.0
"""A server that is down or refuses load is asked again for so long: an engine restarts in it."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0
EMPTY_TRIES = 3
"""Streams without any token after which no more are asked for."""
_BUSY = frozenset({408, 425, 429, 503})
_LOADED = frozenset({408, 425, 429})
"""Of a server that runs, and will not take more: waiting for it is a part of measuring."""
_TOO_LONG = ("maximum context length", "max_model_len", "context length", "too long")


_LONGEST = re.compile(r"(?:maximum context length|max_model_len)\D{1,20}(\d+)", re.IGNORECASE)


class TooLongError(MeasurementError):
    """The server takes no request of this length.

    Parameters
    ----------
    longest_tokens : int or None
        Prompt and answer together, where it says how much it takes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        said = _LONGEST.search(message)
        self.longest_tokens = int(said.group(1)) if said else None


class UnmeasurableError(MeasurementError):
    """The server answers, but this point cannot be measured on it."""


Note = Callable[[str], None]
"""Takes what a reader of the profile should know."""
Write = Callable[[], str]
"""Writes a prompt. Asked again for every try: what a server has read once it may find in its
prefix cache, and would be timed as if it were new."""


@dataclass(slots=True, kw_only=True)
class Sender:
    """Sends requests one by one or together, and asks again where that may help.

    Parameters
    ----------
    patience_s : float
        For so long a server that is down or busy is asked again, seconds.
    resumable : bool
        Whether the same command goes on from what was measured.
    note : Note
    """

    client: LoadClient
    patience_s: float = PATIENCE_S
    note: Note = lambda _text: None
    resumable: bool = True
    lost: int = field(default=0, init=False)
    """Groups of requests that had to be sent again."""
    _outages_s: float = field(default=0.0, init=False)
    _down_since_s: float | None = field(default=None, init=False)

    @property
    def outage_s(self) -> float:
        """Seconds so far in which the server was down, or answered what is no answer."""
        now = 0.0 if self._down_since_s is None else time.monotonic() - self._down_since_s
        return self._outages_s + now

    def _noted_outage(self, begun_s: float, failed: Timing | None) -> None:
        """Count from the first request that failed to the first that did not."""
        if failed is None or failed.status in _LOADED:
            if self._down_since_s is not None:
                self._outages_s += max(begun_s - self._down_since_s, 0.0)
            self._down_since_s = None
        elif self._down_since_s is None:
            self._down_since_s = begun_s

    async def one(
        self, write: Write, output_tokens: int, *, on_first: Callable[[], None] = lambda: None
    ) -> Timing:
        """Send one request and wait for its answer."""
        return (await self.together([write], output_tokens, on_first=on_first))[0]

    async def together(
        self,
        writes: Sequence[Write],
        output_tokens: int,
        *,
        on_first: Callable[[], None] = lambda: None,
    ) -> list[Timing]:
        """Send requests at the same time and wait for all answers; else all again, written anew.

        Raises
        ------
        TooLongError
            When a prompt with its answer is longer than the server takes.
        MeasurementError
            When it answers something else than so many tokens, for longer than our patience.
        """
        deadline = time.monotonic() + self.patience_s
        wait_s = FIRST_WAIT_S
        empty = 0
        while True:
            begun_s = time.monotonic()
            answers = await asyncio.gather(
                *(
                    self.client.send(
                        Completion(prompt=write(), output_tokens=output_tokens), on_first=on_first
                    )
                    for write in writes
                )
            )
            failed = next((a for a in answers if a.error), None)
            self._noted_outage(begun_s, failed)
            if failed is None:
                if not all(a.counted for a in answers):
                    self.note(
                        "the server sent several tokens in one piece, or told no total: their "
                        "gaps are spread evenly, steps are known on average only"
                    )
                return answers
            self._raise_if_final(failed, output_tokens)
            empty += failed.status == 200 and failed.error.startswith("the answer ended after 0")
            if empty == EMPTY_TRIES:
                raise MeasurementError(
                    f"{self.client.url}, model {self.client.model}: {failed.error}, {empty} times "
                    "over: the server answers, but with streams that hold no token; its log says "
                    "more"
                )
            asked = failed.retry_after_s if failed.retry_after_s is not None else wait_s
            if time.monotonic() + asked > deadline:
                raise MeasurementError(self._gave_up(failed, len(writes)))
            self.lost += 1
            self.note(f"requests were sent again after: {failed.error[:160]}")
            await asyncio.sleep(asked)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _raise_if_final(self, failed: Timing, output_tokens: int) -> None:
        text = failed.error.lower()
        where = f"{self.client.url}, model {self.client.model}"
        if failed.status == 400 and any(mark in text for mark in _TOO_LONG):
            raise TooLongError(f"{where}: {failed.error}")
        if failed.status == 404:
            raise MeasurementError(
                f"{where}: {failed.error}: is the address right (without /v1), and the model's "
                "name as `GET /v1/models` lists it?"
            )
        if failed.status in (401, 403):
            raise MeasurementError(
                f"{where}: {failed.error}: give the right key by the environment variable {API_KEY}"
            )
        if failed.status is not None and failed.status not in (200, *_BUSY, 500, 502, 504):
            raise MeasurementError(f"{where}: {failed.error}")
        if failed.error.startswith(NO_COMPLETION):
            raise MeasurementError(f"{where}: {failed.error}")
        if "does not stream" in text:
            raise MeasurementError(
                f"{where}: {failed.error}: first tokens can be timed on servers that stream only"
            )
        if failed.status == 200 and text.startswith("the answer ended after") and failed.tokens:
            raise MeasurementError(
                f"{where}: {failed.error}, though `ignore_eos` and max_tokens {output_tokens} were "
                "asked for: this server lets answers end when they like, so that a batch of a "
                "known size cannot be kept running; measure the engine behind it"
            )

    def _gave_up(self, failed: Timing, requests: int) -> str:
        what = "one request" if requests == 1 else f"{requests} requests at once"
        help_ = (
            "free it of other load"
            + (", or measure smaller batches (--max-batch)" if self.resumable else "")
            if failed.status in _BUSY
            else "its log says more"
            if failed.status == 200
            else "is it running? its log says more"
        )
        kept = "; what was measured is kept: the same command goes on from it"
        how_long = f" for {self.patience_s:.0f} s" if self.patience_s else ""
        if failed.retry_after_s is not None and failed.retry_after_s > self.patience_s > 0:
            how_long = f", and asks to be asked again in {failed.retry_after_s:.0f} s only"
        return (
            f"{self.client.url} did not answer {what}{how_long}: {failed.error}: {help_}"
            f"{kept if self.resumable else ''}"
        )
