"""Reading a whole deployment: two looks at every part, straight or through Prometheus."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from planner.domain.errors import EngineError
from serving.telemetry.machine import MachineLook, look_at_machine, with_hardware
from serving.telemetry.prometheus import PrometheusServer, look_through
from serving.telemetry.signals import TargetSignals
from serving.telemetry.targets import Look, Target, look, signals_of


@dataclass(slots=True)
class StraightReader:
    """Reads metrics pages; each reading goes on from the looks of the one before.

    Parameters
    ----------
    deadline_s : float
        Given to each target by itself, seconds.
    sleep : callable
        Waits between the two looks of the first reading.
    """

    targets: Sequence[Target]
    deadline_s: float
    sleep: Callable[[float], None] = time.sleep
    _looks: tuple[Look, ...] = field(default=(), init=False)
    _machine: MachineLook | None = field(default=None, init=False)

    def read(self, interval_s: float) -> tuple[TargetSignals, ...]:
        """What every target did over an interval that ends now.

        Raises
        ------
        EngineError
            When not one of them answers.
        """
        if not self._looks or self._machine is None:
            self._looks, self._machine = self._look()
        earlier, before = self._looks, self._machine
        self.sleep(interval_s)
        later, after = self._look()
        self._looks, self._machine = later, after
        found = tuple(signals_of(a, b) for a, b in zip(earlier, later, strict=True))
        _check_any(found)
        return with_hardware(found, before, after)

    def _look(self) -> tuple[tuple[Look, ...], MachineLook]:
        looks = look(self.targets, deadline_s=self.deadline_s)
        return looks, look_at_machine(target.url for target in self.targets)


@dataclass(frozen=True, slots=True)
class PrometheusReader:
    """Reads what a Prometheus server knows of every target."""

    server: PrometheusServer
    deadline_s: float

    def read(self) -> tuple[TargetSignals, ...]:
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
        return found


def _check_any(found: Sequence[TargetSignals]) -> None:
    if not any(target.answers for target in found):
        reasons = "\n".join(f"  {t.name} ({t.url}): {t.note}" for t in found)
        raise EngineError(f"nothing answers:\n{reasons}" if found else "there is nothing to ask")
