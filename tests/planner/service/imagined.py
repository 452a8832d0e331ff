"""A target in memory: real steps on an imagined fleet, and failures on demand."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

from planner.domain.errors import OperationError
from planner.domain.fleet import Fleet, version_of
from planner.domain.rollout import Diff, Step
from planner.rollout import after
from planner.service.deployment import Deployment, StoreObserver
from planner.service.documents import windows_of
from planner.service.documents.history import WindowDocument
from planner.service.loop.scheduler import make_scheduler, schedule_ticks
from planner.service.spec.file import read_spec
from planner.service.store import open_store
from tests.planner.service.examples import NOON, history, write_spec
from tests.planner.service.plans import example_fleet


@dataclass
class ImaginedTarget:
    """An Actuator whose steps take effect in memory.

    `fails_at` makes a step fail once, `goes_on` holds every step up until it is set.
    """

    fleet: Fleet
    done: list[Step] = field(default_factory=list)
    fails_at: int | None = None
    objections: tuple[str, ...] = ()
    fails_with: Exception | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    goes_on: threading.Event | None = None

    def read_fleet(self) -> Fleet:
        return self.fleet

    def preflight(self, diff: Diff) -> tuple[str, ...]:
        return self.objections

    def apply(self, step: Step) -> None:
        self.reached.set()
        if self.goes_on is not None:
            assert self.goes_on.wait(timeout=30)
        if self.fails_at == step.index:
            self.fails_at = None
            raise self.fails_with or OperationError("the machine is on fire")
        changed = after(self.fleet, [step], at=self.fleet.read_at + timedelta(seconds=1))
        self.fleet = replace(changed, version=version_of(changed.pools))
        self.done.append(step)

    def await_ready(self, step: Step) -> None:
        assert step in self.done


def make_deployment(folder, *, prefill=1, decode=1, **spec_changes) -> Deployment:
    """A deployment whose store is new and whose target is imagined; the clock stands at NOON."""
    spec = read_spec(write_spec(folder, **spec_changes))
    store = open_store(f"sqlite:///{folder / 'poolwise.db'}")
    return Deployment(
        spec=spec,
        model="tiny",
        observer=StoreObserver(store=store, deployment=spec.name, model="tiny"),
        actuator=ImaginedTarget(fleet=example_fleet(prefill, decode)),
        store=store,
        clock=lambda: NOON,
    )


def observe(deployment: Deployment, windows=None) -> None:
    """Hand in observed windows, by default a steady load that ends at NOON."""
    data = history() if windows is None else windows
    read = windows_of([WindowDocument.model_validate(d) for d in data], where="x")
    deployment.store.add_windows("shop", "tiny", read, received_at=NOON, actor="test")


BUSY = {"requests": 3000, "isl": 1200, "osl": 80}
"""50 requests/s: more than one prefill replica can do."""
IDLE = {"requests": 6, "isl": 200, "osl": 10}


@contextmanager
def busy_deployments(folder, **usual):
    """Makes deployments with a load that is more than they can do; their stores are closed."""
    made = []

    def make(**changes) -> Deployment:
        made.append(make_deployment(folder, **usual | changes))
        observe(made[-1], history(**BUSY))
        return made[-1]

    yield make
    for one in made:
        one.store.close()


def ticking(leadership, metrics, **more):
    """A scheduler that runs the ticks of a deployment."""
    scheduler = make_scheduler(metrics)
    schedule_ticks(scheduler, leadership, metrics, **more)
    scheduler.start()
    return scheduler
