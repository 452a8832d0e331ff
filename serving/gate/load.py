"""What is under way through the gate, cell by cell, and how far estimates were off lately."""

import heapq
import math
from collections import Counter, deque
from dataclasses import dataclass, field

from serving.gate.admission import Slack
from serving.gate.estimates import CellLoad, CellTimes, Estimate, Prompt

REMEMBERED = 256
REMEMBERED_S = 120.0
SLACK_KEPT_S = 0.25
FEWEST = 20
"""With fewer answers, estimates are taken to be off by what the profile says of itself."""


@dataclass(slots=True, eq=False)
class UnderWay:
    """One request between its admission and its end.

    Parameters
    ----------
    work_s : float
        What it adds to prefill steps, seconds.
    first_token_due_s : float
        When its answer should begin; what is not streamed shows no first token.
    worker : str or None
        The decode worker that it was sent straight to.
    """

    prompt: Prompt
    work_s: float
    tpot_promise_s: float | None
    admitted_s: float
    first_token_due_s: float
    stream: bool
    worker: str | None = None


@dataclass(slots=True)
class CellLedger:
    """Requests of one cell, in order of admission."""

    _waiting: dict[int, UnderWay] = field(default_factory=dict)
    _answering: dict[int, UnderWay] = field(default_factory=dict)
    _due: list[tuple[float, int]] = field(default_factory=list)
    _promises: dict[float, int] = field(default_factory=dict)
    _direct_waiting: Counter[str] = field(default_factory=Counter)
    _direct_answering: Counter[str] = field(default_factory=Counter)
    _work_s: float = 0.0
    _held_tokens: float = 0.0
    _answer_tokens: float = 0.0
    _latest_start_s: float = 0.0

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._waiting) + len(self._answering)

    @property
    def waiting(self) -> int:
        """Requests without their first token."""
        return len(self._waiting)

    @property
    def answering(self) -> int:
        """Requests that are being answered."""
        return len(self._answering)

    @property
    def work_s(self) -> float:
        """Prefill work of requests without their first token, seconds."""
        return self._work_s

    def on_worker(self, worker: str) -> tuple[int, int]:
        """(requests, of them without a first token) that were sent straight to a worker."""
        waiting = self._direct_waiting[worker]
        return waiting + self._direct_answering[worker], waiting

    def add(self, one: UnderWay) -> None:
        """A request was let in."""
        self._waiting[id(one)] = one
        if one.worker is None:
            self._work_s += one.work_s
        else:
            self._direct_waiting[one.worker] += 1
        self._held_tokens += one.prompt.input_tokens + one.prompt.output_tokens
        if one.tpot_promise_s is not None:
            count = self._promises.get(one.tpot_promise_s, 0)
            self._promises[one.tpot_promise_s] = count + 1
        if not one.stream:
            heapq.heappush(self._due, (one.first_token_due_s, id(one)))

    def begin(self, one: UnderWay, now_s: float) -> None:
        """Its answer begins."""
        if self._waiting.pop(id(one), None) is None:
            return
        if one.worker is None:
            self._work_s -= one.work_s
            self._latest_start_s = now_s
        else:
            self._direct_waiting[one.worker] -= 1
            self._direct_answering[one.worker] += 1
        self._answering[id(one)] = one
        self._answer_tokens += one.prompt.output_tokens

    def end(self, one: UnderWay) -> None:
        """It is over, however it ended."""
        if self._waiting.pop(id(one), None) is not None:
            if one.worker is None:
                self._work_s -= one.work_s
            else:
                self._direct_waiting[one.worker] -= 1
        elif self._answering.pop(id(one), None) is not None:
            self._answer_tokens -= one.prompt.output_tokens
            if one.worker is not None:
                self._direct_answering[one.worker] -= 1
        else:
            return
        self._held_tokens -= one.prompt.input_tokens + one.prompt.output_tokens
        if one.tpot_promise_s is not None:
            self._promises[one.tpot_promise_s] -= 1
            if not self._promises[one.tpot_promise_s]:
                del self._promises[one.tpot_promise_s]
        if not self._waiting and not self._answering:  # no rounding error survives an idle moment
            self._work_s = self._held_tokens = self._answer_tokens = 0.0
            self._direct_waiting.clear()
            self._direct_answering.clear()

    def load(
        self,
        now_s: float,
        *,
        prefill_replicas: int,
        decode_replicas: int,
        others: "Others",
        kv_usage_ratio: float | None,
    ) -> CellLoad:
        """The cell as it is now, with what came past the gate."""
        self._begin_those_due(now_s)
        waiting, answering = len(self._waiting), len(self._answering)
        work_s = self._work_s - self._progress_s(now_s)
        mean_work_s = self._work_s / waiting if waiting else 0.0
        return CellLoad(
            prefill_replicas=prefill_replicas,
            decode_replicas=decode_replicas,
            prompts=waiting + others.prompts,
            prompt_work_s=max(work_s, 0.0) + others.prompts * mean_work_s,
            answers=answering + others.answers,
            answer_tokens=self._answer_tokens / answering if answering else 0.0,
            held_tokens=self._held_tokens,
            kv_usage_ratio=kv_usage_ratio,
            tightest_tpot_s=min(self._promises, default=None),
        )

    def _begin_those_due(self, now_s: float) -> None:
        while self._due and self._due[0][0] <= now_s:
            _, key = heapq.heappop(self._due)
            if key in self._waiting:
                self.begin(self._waiting[key], now_s)

    def _progress_s(self, now_s: float) -> float:
        """How far the prompt in front has come: since its turn, at most its own work."""
        first = next((one for one in self._waiting.values() if one.worker is None), None)
        if first is None:
            return 0.0
        since_s = max(first.admitted_s, self._latest_start_s)
        return min(max(now_s - since_s, 0.0), first.work_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """Requests that did not come through the gate, as far as engines' own counts show."""

    prompts: int = 0
    answers: int = 0


@dataclass(slots=True)
class Errors:
    """How much later than estimated requests were, newest last."""

    _ttft_s: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    _tpot_s: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    _slack: dict[float, tuple[float, Slack]] = field(default_factory=dict)

    def learn(
        self, expected: Estimate, *, ttft_s: float | None, tpot_s: float | None, now_s: float
    ) -> None:
        """A request came to its end."""
        if ttft_s is not None:
            self._ttft_s.append((now_s, ttft_s - expected.ttft_s))
        if tpot_s is not None:
            self._tpot_s.append((now_s, tpot_s - expected.tpot_s))

    def slack(self, times: CellTimes, attainment_ratio: float, now_s: float) -> Slack:
        """What has to be added so that each objective is kept by half of what may miss.

        It is found anew four times a second at the most: sorting costs more than deciding.
        """
        found_s, known = self._slack.get(attainment_ratio, (-math.inf, Slack()))
        if now_s - found_s < SLACK_KEPT_S:
            return known
        level = 1.0 - (1.0 - attainment_ratio) / 2
        distrust = times.prefill.provenance.error_ratio
        slack = Slack(
            ttft_s=_late(self._ttft_s, level, now_s, distrust * times.prefill.first_token_s),
            tpot_s=_late(self._tpot_s, level, now_s, distrust * times.step_s(1, 0)),
        )
        self._slack[attainment_ratio] = now_s, slack
        return slack


def _late(errors: deque[tuple[float, float]], level: float, now_s: float, unknown: float) -> float:
    while errors and now_s - errors[0][0] > REMEMBERED_S:
        errors.popleft()
    if len(errors) < FEWEST:
        return unknown
    ordered = sorted(error for _, error in errors)
    return ordered[min(int(level * len(ordered)), len(ordered) - 1)]
