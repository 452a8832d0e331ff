"""One request that was let in: sent on, measured, counted and recorded."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import cast

import numpy as np
from numpy.typing import NDArray

from planner.domain.slo import Slo
from serving.gate.admission import Decision, Way
from serving.gate.answer import AnswerMeter
from serving.gate.cells import Cell
from serving.gate.costs import Prices, request_usd
from serving.gate.estimates import Prompt
from serving.gate.lengths import AnswerLengths, PromptLengths, TokenCount
from serving.gate.load import UnderWay
from serving.gate.metrics import GateMetrics
from serving.gate.rates import Bucket
from serving.gate.records import RecordWriter, RequestRecord, computed
from serving.gate.refusals import Refusal
from serving.gate.requests import Asked
from serving.gate.upstream import End


@dataclass(slots=True, kw_only=True)
class Caller:
    """Who asks, and what is left of their rate limits.

    Parameters
    ----------
    name : str
        Of the API key; empty without one.
    rank : float
        0 for the highest priority in use, 1 for the lowest.
    """

    name: str
    request_class: str
    priority: int
    rank: float = 0.0
    requests: Bucket | None = None
    tokens: Bucket | None = None


@dataclass(slots=True)
class Books:
    """Where requests are counted: lengths, metrics, records."""

    metrics: GateMetrics = field(default_factory=GateMetrics)
    records: RecordWriter = field(default_factory=RecordWriter)
    prompts: PromptLengths = field(default_factory=PromptLengths)
    answers: AnswerLengths = field(default_factory=AnswerLengths)
    prices: Mapping[str, Prices] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request from its arrival to its end. Instants in seconds of the monotonic clock.

    Parameters
    ----------
    count : TokenCount
        Tokens of the prompt, as known on arrival.
    """

    books: Books
    caller: Caller
    asked: Asked
    model: str
    count: TokenCount
    prompt: Prompt
    slo: Slo | None
    arrived_s: float
    cell: Cell | None = None
    decision: Decision | None = None
    status: int = 0
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    meter: AnswerMeter = field(init=False)
    _under_way: UnderWay | None = None

    def __post_init__(self) -> None:
        self.meter = AnswerMeter(stream=self.asked.stream)

    def over_rate(self) -> Refusal | None:
        """Why its caller has to wait, and how long; None: nothing stands in its way."""
        for what, bucket, amount in self._charges:
            wait_s = 0.0 if bucket is None else bucket.wait_s(amount, self.arrived_s)
            if bucket is not None and wait_s > 0:
                return Refusal(
                    status=429,
                    reason=f"rate_{what}",
                    message=f"key {self.caller.name} may use {bucket.per_s:g} {what} a second: "
                    f"come again in {wait_s:.1f} s",
                    retry_after_s=wait_s,
                )
        return None

    def charge(self) -> None:
        """It is let in: take it from its caller's limits, its prompt as estimated."""
        for _what, bucket, amount in self._charges:
            if bucket is not None:
                bucket.take(amount, self.arrived_s)

    @property
    def _charges(self) -> tuple[tuple[str, Bucket | None, float], ...]:
        tokens = float(self.count.tokens)
        return ("requests", self.caller.requests, 1.0), ("tokens", self.caller.tokens, tokens)

    def go(self, cell: Cell, decision: Decision, *, worker: str | None) -> None:
        """Count it in this cell from now on, and no longer where it found no connection."""
        if self.cell is not None and self._under_way is not None:
            self.cell.ledger.end(self._under_way)
        self.cell, self.decision = cell, decision
        now_s = time.monotonic()
        times, expected = cell.times, decision.estimate
        self._under_way = UnderWay(
            prompt=self.prompt,
            work_s=0.0 if times is None else times.work_s(*self._parts),
            tpot_promise_s=None if self.slo is None else self.slo.tpot_s,
            admitted_s=now_s,
            first_token_due_s=now_s + (0.0 if expected is None else expected.ttft_s),
            stream=self.asked.stream,
            worker=worker,
        )
        cell.ledger.add(self._under_way)

    @property
    def _parts(self) -> tuple[int, int]:
        return self.prompt.new_tokens, self.prompt.cached_tokens

    def begun(self) -> None:
        """Its first token has come."""
        if self.cell is not None and self._under_way is not None:
            self.cell.ledger.begin(self._under_way, time.monotonic())

    def end(self, end: End) -> None:
        """It is over: learn from it, count it, record it."""
        now_s = time.monotonic()
        together = 1.0
        if self.cell is not None and self._under_way is not None:
            together = self.cell.answers_each
            self.cell.ledger.end(self._under_way)
        outcome = end.value
        if end is End.COMPLETE and (self.status >= 500 or self.meter.error):
            outcome = End.FAILED.value
        elif end is End.COMPLETE and self.status >= 400:
            outcome = "refused"
        record = self._record(outcome, now_s - self.arrived_s, together)
        self._learn(record, now_s)
        self.books.metrics.record(record, self.meter.gaps_s)
        self.books.records.put(record)

    def expect_cached(self, cached_ratio: float) -> None:
        """So large a share of its prompt is expected in the prefix cache."""
        self.prompt = replace(
            self.prompt, cached_tokens=int(self.prompt.input_tokens * cached_ratio)
        )

    def shed(self, decision: Decision, status: int) -> None:
        """It was not let in."""
        self.decision, self.status = decision, status
        record = self._record("shed", time.monotonic() - self.arrived_s, 1.0)
        self.books.metrics.record(record, [])
        self.books.records.put(record)

    @property
    def ttft_s(self) -> float | None:
        """From arrival to first token, seconds; None where it was not streamed."""
        first_s = self.meter.first_token_s
        return None if first_s is None else first_s - self.arrived_s

    def _learn(self, record: RequestRecord, now_s: float) -> None:
        meter, caller = self.meter, self.caller
        if caller.tokens is not None:  # it was charged for its prompt as estimated
            prompt = record.input_tokens if record.computed else 0
            caller.tokens.take(prompt - self.count.tokens + meter.output_tokens, now_s)
        if record.outcome != End.COMPLETE:
            return
        if meter.input_tokens is not None:
            self.books.prompts.learn(self.asked, self.model, meter.input_tokens)
        self.books.answers.learn(caller.request_class, meter.output_tokens)
        expected = None if self.decision is None else self.decision.estimate
        if self.cell is not None and expected is not None:
            self.cell.errors.learn(
                expected, ttft_s=self.ttft_s, tpot_s=self.meter.tpot_s, now_s=now_s
            )

    def _record(self, outcome: str, e2e_s: float, together: float) -> RequestRecord:
        meter, caller = self.meter, self.caller
        decision, cell = self.decision, self.cell
        expected = None if decision is None else decision.estimate
        return RequestRecord(
            started_at=self.started_at,
            model=self.model,
            request_class=caller.request_class,
            priority=caller.priority,
            client=caller.name,
            kind=self.asked.kind.value,
            decision=Way.ADMIT.value if decision is None else decision.way.value,
            reason="" if decision is None else decision.why.value,
            cell="" if cell is None else cell.name,
            outcome=outcome,
            status=self.status,
            input_tokens=meter.input_tokens or self.count.tokens,
            cached_tokens=meter.cached_tokens,
            output_tokens=meter.output_tokens,
            tokens_counted=meter.tokens_counted,
            ttft_s=self.ttft_s,
            tpot_s=meter.tpot_s,
            itl_p99_s=meter.itl_p99_s,
            e2e_s=e2e_s,
            predicted_ttft_s=None if expected is None else expected.ttft_s,
            predicted_tpot_s=None if expected is None else expected.tpot_s,
            met=self._met(outcome, e2e_s),
            cost_usd=self._cost(together) if computed(outcome, meter.output_tokens) else None,
        )

    def _met(self, outcome: str, e2e_s: float) -> bool | None:
        """Whether its objectives were met: failed and shed ones miss them."""
        if self.slo is None or outcome in (End.CANCELLED, "refused"):
            return None
        if outcome != End.COMPLETE:
            return False
        if self.ttft_s is None:
            return None
        one = (_one(self.ttft_s), _one(self.meter.tpot_s), _one(self.meter.itl_p99_s), _one(e2e_s))
        met = self.slo.met(ttft_s=one[0], tpot_s=one[1], itl_p99_s=one[2], e2e_s=one[3])
        return bool(met)

    def _cost(self, together: float) -> float | None:
        cell = self.cell
        prices = self.books.prices.get(self.model)
        if cell is None or cell.times is None or prices is None:
            return None
        tokens = self.meter.output_tokens
        return request_usd(cell.times, prices, self.prompt, output_tokens=tokens, together=together)


def _one(value: float | None) -> "NDArray[np.float64]":
    """One request's value; a scalar of numpy costs a tenth of an array and compares alike."""
    return cast("NDArray[np.float64]", np.float64(np.nan if value is None else value))
