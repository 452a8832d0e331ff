"""A database is an instance: who shares it writes under one name, anybody else is refused."""

from dataclasses import replace
from threading import Barrier, Thread

import pytest

from planner.domain.rollout import ApprovalState
from planner.service.cli.main import run
from planner.service.fleet import lifecycle
from planner.service.hosting.hands import Hands
from planner.service.loop.slow_tick import Outcome, tick
from planner.service.spec.file import read_spec
from planner.service.store import open_store
from planner.service.store.backup import back_up, restore
from tests.actuators.kubernetes.rig import deployment
from tests.kubernetes import FakeCluster
from tests.planner.service.examples import NOON, history, write_spec
from tests.planner.service.fleet.test_kubernetes_target import OBJECTS, on_the_clock_of, simulated
from tests.planner.service.imagined import BUSY, make_deployment, observe


@pytest.fixture
def cluster():
    with FakeCluster(crds="all") as fake:
        fake.load(deployment("prefill", 1))
        fake.load(deployment("decode", 1))
        yield fake


@pytest.fixture
def target(cluster, tmp_path):
    config = str(cluster.kubeconfig(tmp_path / "config"))
    return {"kind": "kubernetes", "kubeconfig": config, "objects": OBJECTS}


def url(folder, name):
    return f"sqlite:///{folder / name}"


def test_a_database_has_one_name_for_all_who_share_it_and_another_one_another(tmp_path):
    stores = [open_store(url(tmp_path, name)) for name in ("a", "a", "b")]
    together, names = Barrier(2), {}

    def ask(index):
        together.wait()
        names[index] = stores[index].instance()

    threads = [Thread(target=ask, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names[0] == names[1] != stores[2].instance()
    for store in stores:
        store.close()
    again = open_store(url(tmp_path, "a"))
    assert again.instance() == names[0]
    again.close()


def test_a_database_that_is_restored_goes_on_under_its_name(tmp_path):
    store = open_store(url(tmp_path, "a"))
    name = store.instance()
    store.close()
    back_up(url(tmp_path, "a"), tmp_path / "copy")
    restore(url(tmp_path, "b"), tmp_path / "copy", now=NOON)
    restored = open_store(url(tmp_path, "b"))
    assert restored.instance() == name
    restored.close()


def service_on(cluster, folder, target, simulation):
    """A service with a database of its own."""
    folder.mkdir()
    loop = {"mode": "auto", "solver_time_limit_s": 5.0}
    made = make_deployment(folder, target=target, loop=loop)
    actuator = Hands(spec=made.spec, desired=None).on(made.store)
    service = replace(made, actuator=on_the_clock_of(simulation, actuator))
    observe(service, history(**BUSY))
    return service


def test_a_second_service_moves_nothing_that_the_first_one_moves(cluster, target, tmp_path):
    simulation = simulated(cluster)
    first = service_on(cluster, tmp_path / "first", target, simulation)
    second = service_on(cluster, tmp_path / "second", target, simulation)
    assert tick(first, now=NOON).outcome is Outcome.APPLIED
    for name in ("prefill", "decode"):
        cluster.scale("deployments", name, 1, manager="poolwise-" + first.store.instance())
    simulation.step(600.0)
    cluster.forget_calls()
    held = tick(second, now=NOON)
    assert held.outcome is Outcome.FAILED
    assert f"another Poolwise (poolwise-{first.store.instance()}, last at " in held.reason
    assert cluster.writes == []
    over = {**target, "take_over_from": [f"poolwise-{first.store.instance()}"]}
    spec = read_spec(write_spec(tmp_path, target=over))
    hands = on_the_clock_of(simulation, Hands(spec=spec, desired=None).on(second.store))
    taken = replace(second, actuator=hands)
    plan_id = held.decision.plan.plan_id
    done = lifecycle.apply(taken, plan_id, by="ann", at=NOON)
    assert done.approval.state is ApprovalState.APPLIED
    assert {w.manager for w in cluster.writes} == {f"poolwise-{second.store.instance()}"}
    for one in (first, second):
        one.store.close()


def test_validate_is_no_instance_and_says_who_scales_what(cluster, target, tmp_path, capsys):
    simulated(cluster)
    cluster.scale("deployments", "decode", 2, manager="poolwise-0123abcd")
    pod = cluster.objects("pods", "default")[0]
    about = {"name": "stranger", "namespace": "default", "labels": pod["metadata"]["labels"]}
    spec = {key: value for key, value in pod["spec"].items() if key != "nodeName"}
    cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec})
    path = write_spec(tmp_path, target=target)
    assert run(["validate", "--spec", str(path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "To know" in shown
    assert "Deployment decode was scaled last by poolwise-0123abcd at 20" in shown
    assert "1 pods (stranger) have its labels and are not its own" in shown
