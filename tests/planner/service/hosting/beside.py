"""A second deployment on the store of a first one."""

from dataclasses import replace

from forecaster.memory import Memory
from planner.service.deployment import Deployment, StoreObserver
from planner.service.documents import windows_of
from planner.service.documents.history import WindowDocument
from planner.service.loop.stages import Stages
from planner.service.spec.file import read_spec
from tests.planner.service.examples import NOON, history, write_spec
from tests.planner.service.imagined import BUSY, ImaginedTarget
from tests.planner.service.plans import example_fleet


def beside(deployment, folder, name, **changes) -> Deployment:
    """A deployment of this name with an imagined target of its own."""
    folder.mkdir()
    return replace(
        deployment,
        spec=read_spec(write_spec(folder, name=name, **changes)),
        observer=StoreObserver(store=deployment.store, deployment=name, model="tiny"),
        actuator=ImaginedTarget(fleet=example_fleet(1, 1)),
        memory=Memory(),
        stages=Stages(),
        running=[],
    )


def keep_busy(deployment) -> None:
    """Hand in a load that is more than the deployment can do."""
    read = windows_of([WindowDocument.model_validate(w) for w in history(**BUSY)], where="x")
    deployment.store.add_windows(
        deployment.spec.name, deployment.model, read, received_at=NOON, actor="test"
    )
