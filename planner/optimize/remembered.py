"""What the twin was asked while one plan is made: an equal question gets the same answer.

Proposals of one plan differ in few windows, and a search comes back to fleets that it has seen. The
twin's answer depends on the question alone, so it is as good the second time; and fleets that are
asked about the same window meet the same drawn requests. Outside of `remembering` nothing is kept.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from planner.domain.forecast import ForecastWindow
from planner.domain.slo import Slo
from planner.domain.workload import Workload
from planner.simulate import ReplicaGroup, Route, RouterPolicy

if TYPE_CHECKING:
    from planner.optimize.replay import Replay

MOST_REQUESTS = 1_000_000
"""Of drawn futures that are kept, the last ones asked for: about a hundred bytes each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Which future of a window.

    Parameters
    ----------
    window : ForecastWindow
        This very object: windows are not compared by value.
    demand_ratio : float
        So many times its requests come.
    number : (seed, window, future) int
    """

    window: ForecastWindow
    demand_ratio: float
    level: float
    duration_s: float
    number: tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """All that a replay's answer depends on; windows and profiles are the very objects."""

    groups: tuple[ReplicaGroup, ...]
    routes: tuple[Route, ...]
    router: RouterPolicy
    window: ForecastWindow
    t: int
    demand_ratio: float
    level: float
    seed: int
    slos: tuple[Slo, ...]
    until_clear: bool
    first_future: int


@dataclass(slots=True, eq=False)
class _Memory:
    answers: dict[Question, "Replay | None"] = field(default_factory=dict)
    doubts: dict[Question, float | None] = field(default_factory=dict)
    futures: OrderedDict[Draw, Workload] = field(default_factory=OrderedDict)
    requests: int = 0

    def keep(self, draw: Draw, drawn: Workload) -> None:
        """Keep a future, and forget those that nobody has asked for longest."""
        self.futures[draw] = drawn
        self.requests += len(drawn)
        while self.requests > MOST_REQUESTS:
            _, oldest = self.futures.popitem(last=False)
            self.requests -= len(oldest)


_memory: ContextVar[_Memory | None] = ContextVar("memory", default=None)
Told = TypeVar("Told")


@contextmanager
def remembering() -> Iterator[None]:
    """Keep questions and answers of this thread, for as long as the outermost of these lasts."""
    if _memory.get() is not None:
        yield
        return
    token = _memory.set(_Memory())
    try:
        yield
    finally:
        _memory.reset(token)


def answered(question: Question, ask: Callable[[], "Replay | None"]) -> "Replay | None":
    """The answer that was given before, or else the one that `ask` gives."""
    memory = _memory.get()
    return ask() if memory is None else _once(memory.answers, question, ask)


def doubted(question: Question, look: Callable[[], float | None]) -> float | None:
    """The same of what the closed form said of a window and a fleet."""
    memory = _memory.get()
    return look() if memory is None else _once(memory.doubts, question, look)


def _once(kept: dict[Question, Told], question: Question, tell: Callable[[], Told]) -> Told:
    if question not in kept:
        kept[question] = tell()
    return kept[question]


def drawn(draw: Draw, sample: Callable[[], Workload]) -> Workload:
    """The requests that were drawn before, or else those that `sample` draws."""
    memory = _memory.get()
    if memory is None:
        return sample()
    if draw in memory.futures:
        memory.futures.move_to_end(draw)
        return memory.futures[draw]
    workload = sample()
    memory.keep(draw, workload)
    return workload
