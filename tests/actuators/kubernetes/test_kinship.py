"""A pod counts for the object that its controllers lead to, whatever labels it carries."""

import pytest

from actuators.kubernetes.counts import Counter
from actuators.kubernetes.pods import pods_of
from planner.domain.errors import PoolwiseError
from planner.domain.fleet import Role
from tests.actuators.kubernetes.rig import DECODE, PREFILL, counted, rigged
from tests.actuators.kubernetes.test_kinds import CASES, prepared
from tests.actuators.kubernetes.test_refusals import LOOKS, PODS, READS, WRITES
from tests.kubernetes import FakeCluster
from tests.kubernetes.access import Rule


def states(actuator):
    return {p.shape: (p.ready, p.starting, p.draining) for p in actuator.read_fleet().pools}


def copy_of(cluster, name, owners, *, called="stranger"):
    """A ready pod with the labels of a pod whose name begins so, owned by these."""
    pods = cluster.objects("pods", "default")
    pod = next(p for p in pods if p["metadata"]["name"].startswith(name))
    about = {"labels": pod["metadata"]["labels"], "namespace": "default", "name": called}
    spec = {k: v for k, v in pod["spec"].items() if k != "nodeName"}
    manifest = {"apiVersion": "v1", "kind": "Pod", "spec": spec, "status": pod["status"]}
    return cluster.create(manifest | {"metadata": about | {"ownerReferences": owners}})


def reference(version, kind, name, uid):
    return {"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": True}


def of_a_job(cluster):
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "j"}, "data": {}}
    return [reference("batch/v1", "Job", "j", cluster.create(config)["metadata"]["uid"])]


def of_another_deployment(cluster):
    sets = cluster.objects("replicasets", "default")
    other = next(s for s in sets if s["metadata"]["name"].startswith("prefill"))
    named = other["metadata"]["name"]
    return [reference("apps/v1", "ReplicaSet", named, other["metadata"]["uid"])]


@pytest.mark.parametrize(
    "owners", [lambda _cluster: [], of_a_job, of_another_deployment], ids=["none", "job", "other"]
)
def test_a_pod_of_somebody_else_with_the_right_labels_is_no_replica(owners):
    with rigged(prefill=1, decode=2) as rig:
        before = rig.actuator().read_fleet()
        copy_of(rig.cluster, "decode", owners(rig.cluster))
        actuator = rig.actuator()
        assert states(actuator) == {PREFILL: (1, 0, 0), DECODE: (2, 0, 0)}
        assert actuator.read_fleet().version == before.version
        counter = next(c for key, c in actuator.counters.items() if key[0] == DECODE)
        (told,) = pods_of(counter.api, counter, counter.read()).told
        assert told == "1 pods (stranger) have its labels and are not its own"


def test_a_strangers_pod_does_not_stand_in_for_one_that_is_missing():
    with rigged(prefill=1, decode=2) as rig:
        copy_of(rig.cluster, "decode", [])
        rig.simulation.stuck = lambda pod: pod["metadata"]["name"] != "stranger"
        rig.simulation.step(1.0)
        assert states(rig.actuator())[DECODE] == (0, 2, 0)


def test_pods_of_an_earlier_replica_set_are_the_deployments_too():
    with rigged(prefill=1, decode=2) as rig:
        rig.simulation.startup_s = 600.0
        decode = rig.cluster.get("deployments", "decode")
        decode["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 140
        rig.cluster.update(decode)
        rig.simulation.step(1.0)
        counter = Counter(rig.cluster.client(), counted(Role.DECODE, "decode"), "default")
        pods = pods_of(counter.api, counter, counter.read())
        assert (len(pods.all), pods.told) == (4, ())


@pytest.mark.parametrize("case", sorted(CASES))
def test_the_chain_of_every_kind_is_told(case):
    objects, targets = CASES[case]
    with FakeCluster(crds="all") as cluster:
        rig = prepared(cluster, objects, targets)
        copy_of(cluster, cluster.objects("pods", "default")[0]["metadata"]["name"], [])
        told = [pods_of(one.api, one, one.read()).told for one in rig.actuator().counters.values()]
        assert sorted(told) == [(), ("1 pods (stranger) have its labels and are not its own",)]


def test_where_the_chain_cannot_be_told_labels_count_and_that_is_said():
    with rigged(prefill=1, decode=2) as rig:
        copy_of(rig.cluster, "decode", [])
        rig.token = rig.cluster.token_with(READS, PODS, WRITES, LOOKS)
        actuator = rig.actuator()
        assert states(actuator)[DECODE] == (2, 0, 0)
        counter = next(c for key, c in actuator.counters.items() if key[0] == DECODE)
        told = pods_of(counter.api, counter, counter.read()).told
        assert told[0] == (
            "pods are counted by their labels alone: this account may not get replicasets.apps: "
            "grant it"
        )
        sets = Rule(verbs=("get",), groups=("apps",), resources=("replicasets",))
        rig.token = rig.cluster.token_with(READS, PODS, WRITES, LOOKS, sets)
        granted = rig.actuator()
        counter = next(c for key, c in granted.counters.items() if key[0] == DECODE)
        assert len(pods_of(counter.api, counter, counter.read()).told) == 1


def test_an_owner_that_cannot_be_read_for_another_reason_ends_the_look():
    with rigged() as rig:
        rig.cluster.fault(verb="get", resource="replicasets", status=500, times=None)
        with pytest.raises(PoolwiseError, match="could not read ReplicaSet"):
            rig.actuator().read_fleet()


def test_pods_of_a_deployment_that_was_made_again_around_them_are_its_own():
    """`kubectl delete --cascade=orphan`, then `create`: the new one adopts the ReplicaSet."""
    with rigged(prefill=1, decode=2) as rig:
        actuator = rig.actuator()
        assert states(actuator)[DECODE] == (2, 0, 0)
        sets = rig.cluster.objects("replicasets", "default")
        made = next(s for s in sets if s["metadata"]["name"].startswith("decode"))
        decode = rig.cluster.get("deployments", "decode")
        orphan = {key: value for key, value in made["metadata"].items() if key != "ownerReferences"}
        rig.cluster.update(made | {"metadata": orphan})
        assert states(actuator)[DECODE] == (2, 0, 0)  # known from before
        rig.cluster.delete("deployments", "decode")
        again = rig.cluster.create(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "decode", "namespace": "default"},
                "spec": decode["spec"],
            }
        )
        uid = again["metadata"]["uid"]
        assert uid != decode["metadata"]["uid"]
        assert states(actuator)[DECODE] == (0, 2, 0)  # not adopted yet
        owned = rig.cluster.get("replicasets", made["metadata"]["name"])
        owned["metadata"]["ownerReferences"] = [reference("apps/v1", "Deployment", "decode", uid)]
        rig.cluster.update(owned)
        assert states(actuator)[DECODE] == (2, 0, 0)


def test_an_owner_that_may_not_be_read_is_asked_for_once_in_a_look():
    with rigged(prefill=1, decode=6) as rig:
        rig.token = rig.cluster.token_with(READS, PODS, WRITES, LOOKS)
        actuator = rig.actuator()
        rig.cluster.forget_calls()
        assert states(actuator)[DECODE] == (6, 0, 0)
        assert sum(call.resource == "replicasets" for call in rig.cluster.calls) == 2
