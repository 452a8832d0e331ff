"""Real engines for the tests below; built by `make engine`, never skipped silently."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.domain.fleet import Role
from planner.service.demo.describe import shape_in
from planner.service.demo.site import MAX_MODEL_LEN, DemoModel, find_engine, prepare_model
from planner.service.settings import read_settings
from serving.fleet.deployment import LocalDeployment, RouterSettings
from serving.routers import RouterKind
from serving.workers.engine import EngineFlags
from serving.workers.launcher import LocalSite

MODEL = DemoModel.TINY


@pytest.fixture(scope="session")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder of these tests' own; the model inside is the cached one."""
    folder = tmp_path_factory.mktemp("state")
    cache = read_settings(os.environ).storage.state_dir / "models"
    cache.mkdir(parents=True, exist_ok=True)
    (folder / "models").symlink_to(cache)
    return folder


@pytest.fixture(scope="session")
def site(state_dir: Path) -> LocalSite:
    engine = find_engine(read_settings(os.environ))
    return LocalSite(
        engine=engine,
        model=prepare_model(engine, MODEL, state_dir / "models", progress=print),
        flags=EngineFlags(max_model_len=MAX_MODEL_LEN, max_num_batched_tokens=MAX_MODEL_LEN),
        state_dir=state_dir / "local",
    )


@pytest.fixture(scope="module", params=list(RouterKind))
def deployment(site: LocalSite, request: pytest.FixtureRequest) -> Iterator[LocalDeployment]:
    """One prefill and one decode worker behind each router that there is an adapter for."""
    with LocalDeployment(site, routing=RouterSettings(kind=request.param)) as running:
        workers = [running.start(shape_in(role, MODEL)) for role in (Role.PREFILL, Role.DECODE)]
        for worker in workers:
            running.await_ready(worker)
            running.route(worker)
        yield running
