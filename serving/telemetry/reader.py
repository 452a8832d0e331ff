"""Reading a whole deployment over an interval, straight or through Prometheus."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from planner.domain.errors import EngineError
from serving.telemetry.machine import MachineLook, look_at_machine, with_hardware
from serving.telemetry.prometheus import PrometheusServer, look_through
from serving.telemetry.signals import TargetKind, TargetSignals
from serving.telemetry.targets import Look, Target, look, signals_of

SHORTEST_DEADLINE_S = 1.0
LOOKS_BETWEEN = 5
"""Looks at engines between the first and the last: their moments tell shares of time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What every target did over an interval.

    Parameters
    ----------
    seconds : float
        Its length.
    targets : tuple of TargetSignals
    looks : tuple of tuple of Look
        Each target's looks in it, oldest first, in the order of `targets`; the last is what its
        signals are of.
    """

    seconds: float
    targets: tuple[TargetSignals, ...]
    looks: tuple[tuple[Look, ...], ...]


NOTHING = Reading(seconds=0.0, targets=(), looks=())
"""Of a deployment of which nothing runs."""


@dataclass(slots=True)
class StraightReader:
    """Reads metrics pages; each reading goes on from the looks of the one before.

    Parameters
    ----------
    deadline_s : float
        Given to each target by itself, seconds.
    sleep : callable
        Waits between looks.
    """

    targets: Sequence[Target]
    deadline_s: float
    sleep: Callable[[float], None] = time.sleep
    _looks: tuple[Look, ...] = field(default=(), init=False)
    _machine: MachineLook | None = field(default=None, init=False)

    def read(self, interval_s: float) -> Reading:
        """What every target did over an interval that ends now.

        Raises
        ------
        EngineError
            When not one of them answers.
        """
        if not self._looks or self._machine is None:
            self._looks, self._machine = self._look()
        began_s = time.monotonic()
        earlier, before = self._looks, self._machine
        between = self._between(earlier, interval_s)
        later, after = self._look()
        self._looks, self._machine = later, after
        found = tuple(signals_of(a, b) for a, b in zip(earlier, later, strict=True))
        _check_any(found)
        return Reading(
            seconds=time.monotonic() - began_s,
            targets=with_hardware(found, before, after),
            looks=tuple(zip(earlier, *between, later, strict=True)),
        )

    def _between(self, earlier: tuple[Look, ...], interval_s: float) -> list[tuple[Look, ...]]:
        """Wait for the interval, looking at engines that answer; twice as long at the most."""
        began_s, step_s = time.monotonic(), interval_s / (LOOKS_BETWEEN + 1)
        engines = [x.target for x in earlier if x.page and x.target.kind is TargetKind.ENGINE]
        found = []
        for count in range(1, LOOKS_BETWEEN + 1 if engines else 0):
            gone_s = time.monotonic() - began_s
            if gone_s > 2 * interval_s:  # so many pages that reading them takes too long
                break
            self.sleep(max(count * step_s - gone_s, 0.0))
            seen = {
                x.target: x
                for x in look(
                    engines, deadline_s=min(max(step_s, SHORTEST_DEADLINE_S), self.deadline_s)
                )
            }
            found.append(tuple(seen.get(x.target, _unseen(x.target)) for x in earlier))
        self.sleep(max(began_s + interval_s - time.monotonic(), 0.0))
        return found

    def _look(self) -> tuple[tuple[Look, ...], MachineLook]:
        looks = look(self.targets, deadline_s=self.deadline_s)
        return looks, look_at_machine(target.url for target in self.targets)


@dataclass(frozen=True, slots=True)
class PrometheusReader:
    """Reads what a Prometheus server knows of every target."""

    server: PrometheusServer
    deadline_s: float

    def read(self) -> Reading:
        """What every target did over the server's window.

        Raises
        ------
        EngineError
            When the server does not answer or knows none of the metrics, or when no target's
            figures are of now.
        """
        seen = look_through(self.server, deadline_s=self.deadline_s)
        found = tuple(signals_of(one.earlier, one.later) for one in seen)
        _check_any(found)
        return Reading(
            seconds=self.server.window_s,
            targets=found,
            looks=tuple(one.looks for one in seen),
        )


def _unseen(target: Target) -> Look:
    return Look(target=target, error="it was not looked at")


def _check_any(found: Sequence[TargetSignals]) -> None:
    if not any(target.answers for target in found):
        reasons = "\n".join(f"  {t.name} ({t.url}): {t.note}" for t in found)
        raise EngineError(f"nothing answers:\n{reasons}" if found else "there is nothing to ask")
