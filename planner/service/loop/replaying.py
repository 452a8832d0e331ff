"""Decisions with all that they were made from, so that any of them can be made once more."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from planner.autoscale.slow import Decision, decide
from planner.domain.errors import InputError, PoolwiseError
from planner.domain.fleet import Fleet
from planner.domain.forecast import Forecast
from planner.domain.spec import Spec
from planner.rollout import GuardConditions
from planner.service.loop.written_values import differences, tree_of, value_in, written

PARTS = ("spec", "forecast", "fleet", "conditions", "moment")
"""What a decision is made from, part by part; parts that two decisions share are kept once."""
ANSWER = "answer"
VERSIONS = "versions"
_PACKAGES = ("poolwise", "ortools", "numpy", "scipy", "numba")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Everything that `planner.autoscale.slow.decide` is given."""

    spec: Spec
    forecast: Forecast
    fleet: Fleet
    conditions: GuardConditions
    now: datetime

    def decide(self) -> Decision:
        """The answer. Raises as `planner.autoscale.slow.decide`."""
        return decide(
            self.spec,
            self.forecast,
            self.fleet,
            now=self.now,
            conditions=self.conditions,
            compare_unchanged=False,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What came of making a decision once more.

    Parameters
    ----------
    differences : tuple of str
        Between the answer that was kept and the one now, elapsed times left out; empty: none.
    versions : tuple of str
        What is of another version now than when it was decided, as `ortools 9.11, now 9.12`.
    """

    differences: tuple[str, ...]
    versions: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether the answer is the same."""
        return not self.differences


def recorded(question: Question, answer: Decision | PoolwiseError) -> dict[str, str]:
    """All parts of a decision as texts: what it was made from, by what, and what came out."""
    return {
        "spec": written(question.spec),
        "forecast": written(question.forecast),
        "fleet": written(question.fleet),
        "conditions": written(question.conditions),
        "moment": written(question.now),
        VERSIONS: written(versions()),
        ANSWER: _answer(answer),
    }


def replay(parts: Mapping[str, str]) -> Replay:
    """Make a recorded decision once more, and compare.

    Raises
    ------
    InputError
        When a part is missing, or was written by a version whose values are no more.
    """
    lacking = [name for name in (*PARTS, VERSIONS, ANSWER) if name not in parts]
    if lacking:
        raise InputError(f"the decision's {', '.join(lacking)} was not kept: it cannot be replayed")
    question = _question(parts)
    try:
        now = _answer(question.decide())
    except PoolwiseError as error:
        now = _answer(error)
    return Replay(
        differences=tuple(differences(tree_of(parts[ANSWER]), tree_of(now))),
        versions=_changed(parts[VERSIONS]),
    )


@cache
def versions() -> dict[str, str]:
    """What decides, by name and version; the same as long as the process lives."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a source tree that was never installed
            found[name] = "unknown"
    return found


def versions_in(text: str) -> dict[str, str]:
    """The versions that were recorded."""
    value = value_in(text)
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _question(parts: Mapping[str, str]) -> Question:
    spec, forecast, fleet, conditions, now = (value_in(parts[name]) for name in PARTS)
    if not (
        isinstance(spec, Spec)
        and isinstance(forecast, Forecast)
        and isinstance(fleet, Fleet)
        and isinstance(conditions, GuardConditions)
        and isinstance(now, datetime)
    ):
        raise InputError("the decision's parts are mixed up: it cannot be replayed")
    return Question(spec=spec, forecast=forecast, fleet=fleet, conditions=conditions, now=now)


def _answer(answer: Decision | PoolwiseError) -> str:
    """The answer without elapsed times."""
    if isinstance(answer, PoolwiseError):
        return written({"error": type(answer).__name__, "said": str(answer)})
    solver = replace(answer.plan.solver, wall_s=0.0)
    return written(replace(answer, plan=replace(answer.plan, solver=solver)))


def _changed(then: str) -> tuple[str, ...]:
    before, now = versions_in(then), versions()
    names = dict.fromkeys([*before, *now])
    return tuple(
        f"{name} {before.get(name, 'none')}, now {now.get(name, 'none')}"
        for name in names
        if before.get(name) != now.get(name)
    )
