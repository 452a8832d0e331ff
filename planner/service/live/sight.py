"""What a process makes of readings of its running deployment, by the spec in force."""

from collections.abc import Callable
from dataclasses import dataclass, field

from planner.service.deployment import Deployment
from planner.service.election.leadership import Leadership
from planner.service.live.observing import Keeper, Windows, classes_of
from planner.service.live.watching import LiveSignals
from planner.service.loop.waiting_work import WaitingWork
from serving.telemetry.signals import DeploymentSignals
from serving.telemetry.whole import Promised

Take = Callable[[DeploymentSignals], None]


@dataclass(slots=True)
class Sight:
    """Observed windows, and work that waits where there is a fast tick.

    Parameters
    ----------
    live : LiveSignals
        Tells every reading; whoever else listens goes on to.
    """

    leadership: Leadership
    live: LiveSignals
    _windows: Windows = field(init=False)
    _waiting: WaitingWork = field(init=False)
    _listening: tuple[Take, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        self._windows = self._begin(self.leadership.deployment)
        self._waiting = WaitingWork(leading=self.leadership.leading)
        self._listen(self.leadership.deployment)

    def follow(self, made: Deployment) -> None:
        """Look at a deployment in the place of the one before: its spec was replaced.

        Windows that are under way go on where their length and classes stay the same.
        """
        self.live.promised = Promised(spec=made.spec, model=made.model)
        begun = self._begin(made)
        if (begun.window_s, begun.classes) != (self._windows.window_s, self._windows.classes):
            self._windows = begun
        self._listen(made)

    def _begin(self, deployment: Deployment) -> Windows:
        spec = deployment.spec
        return Windows(
            window_s=spec.forecast.window_s,
            classes=classes_of(spec, deployment.model),
            keep=Keeper(leading=self.leadership.leading, since=deployment.clock()),
        )

    def _listen(self, deployment: Deployment) -> None:
        """Take the place of what listened here before; the list is replaced, not changed."""
        own: list[Take] = [self._windows.take]
        if deployment.spec.loop.fast_interval_s > 0:
            own.append(self._waiting.take)
        others = [take for take in self.live.on_signals if take not in self._listening]
        self.live.on_signals = [*others, *own]
        self._listening = tuple(own)
