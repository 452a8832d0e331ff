"""Desired replicas on their way: planned by `poolwise serve`, scraped, asked for, followed."""

import os
import subprocess
import sys
from functools import partial

import httpx
import pytest
import yaml

from planner.service.deployment import guard_conditions
from tests.actuators.kubernetes.rig import deployment
from tests.kubernetes import FakeCluster
from tests.kubernetes.autoscaling import wanted_replicas
from tests.planner.service.examples import NOON, fleet, write_spec
from tests.planner.service.imagined import make_deployment
from tests.planner.service.served import hand_in, served
from tests.serving.telemetry.servers import prometheus, until, value_of

OBJECTS = [
    {"role": "prefill", "kind": "Deployment", "name": "prefill"},
    {"role": "decode", "kind": "Deployment", "name": "decode"},
]
POOLS = [
    {"model": "tiny", "role": "prefill", "accelerator": "cpu", "max_replicas": 4},
    {"model": "tiny", "role": "decode", "accelerator": "cpu", "max_replicas": 12},
]
PINS = {"pins": [{"pool": "decode:cpu:tp1", "replicas": 11}]}
HERE = "/v1/deployments/shop"
WAIT_S = 120.0


def write_exporting_spec(folder, **changes):
    """A spec whose plans are exported; all of them want eleven decode replicas."""
    target = {"kind": "metrics", "namespace": "serving", "objects": OBJECTS}
    return write_spec(folder, **{"target": target, "pools": POOLS, "guards": PINS, **changes})


def rendered(folder, *arguments):
    """What `poolwise render` prints, as objects."""
    done = subprocess.run(
        [sys.executable, "-m", "planner.service.cli.main", "render", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=folder,
        env={**os.environ, "POOLWISE_STATE_DIR": str(folder / "state")},
    )
    return list(yaml.safe_load_all(done.stdout))


def adapter_query(rule, hpa):
    """The query that prometheus-adapter makes of its rule for an HPA's metric."""
    metric = hpa["spec"]["metrics"][0]["external"]["metric"]
    matchers = ",".join(f'{k}="{v}"' for k, v in metric["selector"]["matchLabels"].items())
    query = rule["metricsQuery"].replace("<<.Series>>", metric["name"])
    return query.replace("<<.LabelMatchers>>", matchers)


@pytest.mark.timeout(600)
def test_a_plan_reaches_the_replicas_through_prometheus_and_an_hpa(tmp_path):
    spec = write_exporting_spec(
        tmp_path,
        forecast={"window_s": 2.0, "horizon_windows": 2},
        loop={"mode": "auto", "slow_interval_s": 1, "solver_time_limit_s": 5.0},
        guards={**PINS, "stale_observation_s": 5.0},
    )
    of = ("--spec", str(spec))
    by_name = {one["spec"]["scaleTargetRef"]["name"]: one for one in rendered(tmp_path, "hpa", *of)}
    hpa = by_name["decode"]
    (adapter,) = rendered(tmp_path, "prometheus-adapter")
    query = adapter_query(adapter["externalRules"][0], hpa)
    with (
        FakeCluster() as cluster,
        served(tmp_path, "--insecure-local") as (_, facts),
        prometheus(tmp_path, {"poolwise": (facts["url"], "")}) as url,
        httpx.Client(base_url=facts["url"], timeout=60) as client,
    ):
        asked = partial(value_of, url, query)
        (by_keda,) = (
            one["spec"]["triggers"][0]["metadata"]["query"]
            for one in rendered(tmp_path, "keda", *of, "--prometheus", url)
            if one["spec"]["scaleTargetRef"]["name"] == "decode"
        )
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "serving"}})
        cluster.load(deployment("decode", 10).replace("namespace: default", "namespace: serving"))
        cluster.create(hpa)
        assert asked() is None
        assert client.put(f"{HERE}/fleet", json=fleet(1, 10)).status_code == 200

        def exported():
            hand_in(client, HERE)
            return asked() == 11

        until(exported, "eleven were never exported", timeout_s=WAIT_S)
        assert value_of(url, by_keda) == 11
        wanted = wanted_replicas(hpa, 10, asked())
        cluster.scale("deployments", "decode", wanted, "serving", manager="hpa")
        assert cluster.get("deployments", "decode", "serving")["spec"]["replicas"] == 11
        # The default tolerance of an HPA takes it for as good as there.
        tolerant = {**hpa, "spec": {**hpa["spec"], "behavior": {}}}
        assert wanted_replicas(tolerant, 10, 11) == 10

        # Nobody sees the load any more: the series goes, the HPA holds.
        until(lambda: asked() is None, "an old count is still shown", timeout_s=WAIT_S)
        assert wanted_replicas(hpa, 11, asked()) == 11
        assert "poolwise_desired_replicas{" not in client.get("/metrics").text


@pytest.mark.timeout(600)
def test_keda_is_answered_beside_the_api_until_it_stops(tmp_path):
    grpc = pytest.importorskip("grpc", reason="needs the extra keda (grpcio, protobuf)")
    from actuators.keda import externalscaler_pb2 as pb
    from tests.actuators.test_keda import Client

    spec = write_exporting_spec(tmp_path, loop={"mode": "approve", "slow_interval_s": 3600})
    with served(tmp_path, "--insecure-local", "--keda-port", "0") as (process, facts):
        manifests = rendered(tmp_path, "keda", "--spec", str(spec), "--scaler", facts["keda"])
        metadata = {
            one["spec"]["scaleTargetRef"]["name"]: one["spec"]["triggers"][0]["metadata"]
            for one in manifests
        }["decode"]
        keda = Client(metadata["scalerAddress"])
        ref = pb.ScaledObjectRef(name="decode", namespace="serving", scalerMetadata=metadata)
        with pytest.raises(grpc.RpcError, match=r"desired replicas .*role=decode.* not known"):
            keda.count(ref)
        stream = keda.stream(ref)
        with httpx.Client(base_url=facts["url"], timeout=120) as client:
            assert client.put(f"{HERE}/fleet", json=fleet(1, 10)).status_code == 200
            hand_in(client, HERE)
            plan = client.post("/v1/plans", json={}).json()
            path = f"/v1/plans/{plan['plan_id']}"
            client.post(f"{path}/approve")
            assert client.post(f"{path}/apply").json()["approval"]["state"] == "applied"
        assert next(stream).result
        assert keda.count(ref) == 11
        process.terminate()
        with pytest.raises(grpc.RpcError):
            next(stream)
        assert process.wait(timeout=60) == 0
    keda.channel.close()


@pytest.mark.parametrize(
    ("target", "can"),
    [
        ({"kind": "dry_run"}, True),
        ({"kind": "metrics", "objects": OBJECTS}, False),
        ({"kind": "kubernetes", "objects": OBJECTS}, False),
    ],
)
def test_pods_of_a_cluster_are_never_to_change_their_role(tmp_path, target, can):
    deployment = make_deployment(tmp_path, target=target)
    try:
        seen = deployment.observer.observe(now=NOON)
        assert guard_conditions(deployment, seen, now=NOON).can_flip is can
    finally:
        deployment.store.close()


START = "import sys; from planner.service.cli.main import run; sys.exit(run(sys.argv[1:]))"


def serve(folder, *arguments, start=START, **environment):
    """`poolwise serve` that is to refuse: (status, what it said, the state folder)."""
    state = folder / "state"
    done = subprocess.run(
        [
            *(sys.executable, "-c", start, "serve"),
            *("--spec", str(folder / "spec.yaml"), "--port", "0", *arguments),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "POOLWISE_STATE_DIR": str(state), **environment},
    )
    return done.returncode, done.stderr, state


def test_a_taken_keda_port_is_one_clear_message_before_anything_starts(tmp_path, taken_port):
    write_exporting_spec(tmp_path)
    status, said, state = serve(tmp_path, POOLWISE_KEDA_PORT=str(taken_port))
    assert status == 1
    assert said.startswith(f"poolwise: cannot listen on 127.0.0.1 port {taken_port}: ")
    assert "--keda-port 0" in said
    assert len(said.splitlines()) == 1
    assert not state.exists()


def test_keda_is_not_answered_for_a_target_that_exports_nothing(tmp_path):
    write_exporting_spec(tmp_path)
    status, said, state = serve(tmp_path, "--keda-port", "0", "--dry-run")
    assert status == 2
    assert "goes with target.kind metrics, not with dry_run" in said
    assert not state.exists()


def test_without_grpc_what_to_install_is_told(tmp_path):
    write_exporting_spec(tmp_path)
    without = f"import sys; sys.modules['grpc'] = None; {START}"
    status, said, state = serve(tmp_path, "--keda-port", "0", start=without)
    assert status == 2
    assert "`pip install poolwise[keda]`" in said
    assert not state.exists()
