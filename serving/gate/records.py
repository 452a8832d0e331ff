"""What is kept of every request: figures and decisions, never a word of it."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from planner.domain.errors import StoreError

LOG = logging.getLogger("poolwise.gate")
FLUSH_S = 2.0
BATCH = 1_000
QUEUED = 20_000
"""More records wait for the store at the most; older ones are dropped and counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request as the gate saw it. None: not observed.

    Parameters
    ----------
    client : str
        Name of the API key; empty without one.
    decision, reason : str
        Values of `admission.Way` and `Why`, or `refuse` and the refusal's reason.
    cell : str
        Where it was sent; empty: nowhere.
    outcome : str
        complete, failed (by the upstream), cancelled (by the client), refused or shed.
    status : int
        HTTP status that the client got; 0: none.
    input_tokens, output_tokens : int
    tokens_counted : bool
        Whether the server counted them; else prompts are estimated, chunks counted.
    ttft_s, tpot_s, itl_p99_s : float or None
        Seconds, of streamed answers.
    e2e_s : float
        From the arrival of the request to the end of the answer, seconds.
    predicted_ttft_s, predicted_tpot_s : float or None
        As estimated when it was let in or shed.
    met : bool or None
        Whether every objective of its class was met; None: it has none, or was not streamed.
    cost_usd : float or None
        For the accelerator time that it took.
    """

    started_at: datetime
    model: str
    request_class: str
    priority: int
    client: str
    kind: str
    decision: str
    reason: str
    cell: str
    outcome: str
    status: int
    input_tokens: int
    cached_tokens: int | None
    output_tokens: int
    tokens_counted: bool
    ttft_s: float | None
    tpot_s: float | None
    itl_p99_s: float | None
    e2e_s: float
    predicted_ttft_s: float | None
    predicted_tpot_s: float | None
    met: bool | None
    cost_usd: float | None

    @property
    def computed(self) -> bool:
        """Whether an engine worked for it, as far as can be seen."""
        return computed(self.outcome, self.output_tokens)


def computed(outcome: str, output_tokens: int) -> bool:
    """Whether an engine worked for a request, as far as can be seen.

    What was refused, shed or failed before its first token is not charged for.
    """
    return outcome not in ("refused", "shed", "failed") or output_tokens > 0


class RequestSink(Protocol):
    """Where records go; may block, is called from a thread of its own."""

    def add_requests(self, records: Sequence[RequestRecord]) -> None:
        """Keep records.

        Raises StoreError when they cannot be kept now.
        """


@dataclass(slots=True)
class RecordWriter:
    """Hands records to a sink in batches, off the requests' path.

    Parameters
    ----------
    sink : RequestSink or None
        None: nothing is kept.
    dropped : int
        Records that found no room while the store did not take them.
    """

    sink: RequestSink | None = None
    queued: int = QUEUED
    dropped: int = 0
    written: int = 0
    _queue: deque[RequestRecord] = field(default_factory=deque)
    _failing: bool = False

    def put(self, record: RequestRecord) -> None:
        """Queue a record; never waits."""
        if self.sink is None:
            return
        if len(self._queue) >= self.queued:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(record)

    async def run(self) -> None:
        """Write until cancelled; what is queued then is left for `flush`."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what is queued; on a failure of the store it stays queued."""
        while self.sink is not None and self._queue:
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            try:
                await asyncio.to_thread(self.sink.add_requests, batch)
            except StoreError as error:
                self._keep(batch)
                if not self._failing:
                    LOG.warning("requests cannot be recorded, they wait in memory: %s", error)
                self._failing = True
                return
            self.written += len(batch)
            self._failing = False

    def _keep(self, batch: Sequence[RequestRecord]) -> None:
        room = max(self.queued - len(self._queue), 0)
        kept = batch[len(batch) - min(room, len(batch)) :]
        self.dropped += len(batch) - len(kept)
        self._queue.extendleft(reversed(kept))
