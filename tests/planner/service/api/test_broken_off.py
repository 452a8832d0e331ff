"""Work that is cancelled ends: solver, twin and forecast stop, and their thread is free again."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from planner.domain.errors import NotWantedError
from planner.domain.wanted import Wanted, working_for
from planner.optimize import cp_sat, plan
from planner.optimize.inputs import SolverSettings
from planner.optimize.linear import Linear
from planner.service.answers.planning import expected_demand
from planner.service.documents import windows_of
from planner.service.documents.history import WindowDocument
from planner.service.job_runner import Made
from planner.service.spec.file import read_spec
from planner.service.store import open_store
from planner.service.store.jobs import JobState
from planner.simulate import Scenario, simulate
from tests.fakes.workloads import poisson_workload
from tests.planner.service.api.test_jobs import ASYNC, Workshop, ask
from tests.planner.service.clients import client_of
from tests.planner.service.examples import NOON, history, write_spec
from tests.planner.service.imagined import BUSY, ImaginedTarget, make_deployment
from tests.planner.simulate.test_twin import pools

HOURS_S = 5 * 3_600.0


def market_split(rows=6, columns=40):
    """A question of yes or no that takes solvers hours (Cornuejols and Dawande, 1999)."""
    rng = np.random.default_rng(1)
    matrix = rng.integers(0, 100, (rows, columns)).astype(float)
    half = np.floor(matrix.sum(axis=1) / 2)
    return Linear(
        matrix=csr_array(matrix),
        low=half,
        high=half,
        lower=np.zeros(columns),
        upper=np.ones(columns),
        is_rate=np.zeros(columns, dtype=bool),
    )


class Search(Workshop):
    """A runner whose work is a search of hours."""

    def perform(self, body, by, progress):
        model, settings = market_split(), SolverSettings(time_limit_s=HOURS_S)
        self.go.set()
        cp_sat.solve(model, np.ones(model.column_count), settings=settings, work=HOURS_S)
        return Made(status=200, text="{}")


@pytest.fixture
def store(database_url):
    opened = open_store(database_url)
    yield opened
    opened.close()


def await_free(runner):
    """Wait until none of its threads works; the test's time limit ends it else."""
    while runner._running:
        threading.Event().wait(0.05)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_search_of_hours_ends_when_its_job_is_cancelled(store, elsewhere):
    shop = Search(store, workers=1)
    job = shop.runner.submit_job("plans", ask("x"), by="ann")
    assert shop.go.wait(60)
    if elsewhere:  # by a process that has no part in the work
        shop.jobs.cancel(job.job_id, by="ann", at=NOON)
    else:
        shop.runner.cancel(job.job_id, by="ann")
    await_free(shop.runner)
    assert shop.state(job) is JobState.CANCELLED
    shop.runner.stop()


def test_a_search_of_hours_is_left_to_the_next_process_when_a_server_stops(store):
    shop = Search(store, workers=1)
    job = shop.runner.submit_job("plans", ask("x"), by="ann")
    assert shop.go.wait(60)
    shop.runner.stop()
    assert shop.state(job) is JobState.QUEUED


class LooksFewTimes(Wanted):
    """Work that is given up after so many looks."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    @property
    def given_up(self):
        self.looks -= 1
        return self.looks < 0


def test_a_replay_ends_between_two_looks():
    scenario = Scenario(groups=pools(2, 2), workload=poisson_workload(requests=2_000, rate_rps=5.0))
    whole = simulate(scenario)
    with pytest.raises(NotWantedError), working_for(LooksFewTimes(20)):
        simulate(scenario)
    with working_for(Wanted()):
        assert np.array_equal(simulate(scenario).ttft_s, whole.ttft_s)


def test_forecast_and_plan_end_between_two_looks(tmp_path):
    spec = read_spec(write_spec(tmp_path))
    data = [WindowDocument.model_validate(d) for d in history(**BUSY)]
    windows = windows_of(data, where="x")

    def expected():
        return expected_demand(spec, windows, model="tiny", made_at=NOON)

    with pytest.raises(NotWantedError), working_for(LooksFewTimes(5)):
        expected()
    forecast = expected()
    with pytest.raises(NotWantedError), working_for(LooksFewTimes(8)):
        plan(spec, forecast, None, made_at=NOON)


class SlowToRead(ImaginedTarget):
    """A target whose fleet is read once it is let go."""

    def read_fleet(self):
        self.reached.set()
        assert self.goes_on.wait(60)
        return self.fleet


def test_a_plan_that_is_cancelled_leaves_none_behind(tmp_path):
    made = make_deployment(tmp_path)
    target = SlowToRead(fleet=made.actuator.fleet, goes_on=threading.Event())
    client = client_of(replace(made, actuator=target))
    path = client.post("/v1/plans", {"history": history(**BUSY)}, headers=ASYNC).headers["location"]
    assert target.reached.wait(60)
    assert client.delete(path).json()["state"] == "cancelled"
    target.goes_on.set()
    await_free(client.app.state.runner)
    assert client.get("/v1/plans").json()["plans"] == []
    client.app.state.runner.stop()
    made.store.close()
