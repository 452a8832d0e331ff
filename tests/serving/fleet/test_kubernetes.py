"""Manifests hold only what the API knows, and what makes prefill and decode work."""

import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from kubernetes.client import ApiClient

from planner.domain.fleet import Role
from planner.domain.topology import Cell
from serving.fleet.kubernetes import KubernetesDescription, render
from serving.fleet.kubernetes_gate import GateDescription
from serving.workers.engine import EngineFlags
from tests.kubernetes import FakeCluster
from tests.serving.conftest import PREFILL

KINDS = {
    "Deployment": "V1Deployment",
    "Service": "V1Service",
    "ServiceAccount": "V1ServiceAccount",
    "Role": "V1Role",
    "RoleBinding": "V1RoleBinding",
}
ROOT = Path(__file__).resolve().parents[3]


PAIRS = {Role.PREFILL: 2, Role.DECODE: 3}
MIXED = {**PAIRS, Role.AGGREGATED: 4}


GATE = GateDescription(
    image="poolwise:1", spec_config="poolwise-spec", keys_secret="poolwise-keys", model="qwen"
)


def described(
    *cells: Cell, replicas: dict[Role, int] | None = None, gate: GateDescription | None = None
) -> KubernetesDescription:
    return KubernetesDescription(
        name="poolwise",
        namespace="serving",
        model="/models/qwen",
        served_name="qwen",
        replicas=replicas or PAIRS,
        shape=PREFILL,
        flags=EngineFlags(enforce_eager=False),
        cells=cells or (Cell(name="local"),),
        engine_image="engine:1",
        router_image="router:1",
        model_claim="models",
        gate=gate,
    )


def documents(
    *cells: Cell, replicas: dict[Role, int] | None = None, gate: GateDescription | None = None
) -> list[dict]:
    files = render(described(*cells, replicas=replicas, gate=gate))
    del files["kustomization.yaml"]
    return [d for text in files.values() for d in yaml.safe_load_all(text)]


@pytest.mark.parametrize(
    "document",
    documents(replicas=MIXED, gate=GATE),
    ids=lambda d: f"{d['kind']}-{d['metadata']['name']}",
)
def test_the_api_knows_every_field(document: dict) -> None:
    api = ApiClient()
    read = api.deserialize(json.dumps(document), KINDS[document["kind"]], "application/json")
    assert api.sanitize_for_serialization(read) == document


def workload(component: str, found: list[dict]) -> dict:
    (one,) = [
        d
        for d in found
        if d["kind"] == "Deployment"
        and d["metadata"]["labels"]["app.kubernetes.io/component"] == component
    ]
    return one


def test_workers_carry_what_a_pair_needs() -> None:
    found = documents()
    for role, count in (("prefill", 2), ("decode", 3)):
        deployment = workload(role, found)
        pod = deployment["spec"]["template"]
        (container,) = pod["spec"]["containers"]
        assert deployment["spec"]["replicas"] == count
        assert pod["metadata"]["annotations"] == {"smg.ai/kv-connector": "NixlConnector"}
        arguments = container["args"]
        transfer = json.loads(arguments[arguments.index("--kv-transfer-config") + 1])
        assert transfer["kv_load_failure_policy"] == "fail"
        names = {e["name"] for e in container["env"]}
        assert {"VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT"} <= names
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


def test_the_routers_selectors_match_the_workers_of_its_cell_only() -> None:
    cells = (
        Cell(name="a", node_labels=(("topology.kubernetes.io/zone", "a"),)),
        Cell(name="b"),
    )
    found = documents(*cells)
    pods = {
        d["metadata"]["name"]: d["spec"]["template"]["metadata"]["labels"]
        for d in found
        if d["kind"] == "Deployment"
    }
    for cell in ("a", "b"):
        (router,) = [
            d
            for d in found
            if d["metadata"]["name"] == f"poolwise-{cell}-router" and d["kind"] == "Deployment"
        ]
        arguments = router["spec"]["template"]["spec"]["containers"][0]["args"]
        start = arguments.index("--prefill-selector") + 1
        wanted = dict(pair.split("=") for pair in arguments[start : start + 3])
        chosen = [n for n, labels in pods.items() if wanted.items() <= labels.items()]
        assert chosen == [f"poolwise-{cell}-prefill"]
    zone = next(d for d in found if d["metadata"]["name"] == "poolwise-a-decode")
    assert zone["spec"]["template"]["spec"]["nodeSelector"] == {"topology.kubernetes.io/zone": "a"}


@pytest.mark.parametrize(
    ("replicas", "routers"),
    [
        (PAIRS, ["poolwise-local-router"]),
        ({Role.AGGREGATED: 4}, ["poolwise-local-router-aggregated"]),
        (MIXED, ["poolwise-local-router", "poolwise-local-router-aggregated"]),
    ],
)
def test_an_api_server_takes_them_and_every_worker_has_one_router(
    replicas: dict[Role, int], routers: list[str]
) -> None:
    with FakeCluster() as cluster:
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "serving"}})
        for document in documents(replicas=replicas):
            cluster.create(document, "serving")
        made = {d["metadata"]["name"]: d for d in cluster.objects("deployments")}
        served = {d["metadata"]["name"] for d in cluster.objects("services", "serving")}
    assert {f"poolwise-local-{role}" for role in replicas} | set(routers) == set(made)
    assert served == set(routers)
    chosen = [
        sorted(finds(made[router], option, made))
        for router in routers
        for option in ("--prefill-selector", "--decode-selector", "--selector")
    ]
    every = sorted(name for names in chosen for name in names)
    assert every == sorted(f"poolwise-local-{role}" for role in replicas)


def finds(router: dict, option: str, deployments: dict[str, dict]) -> list[str]:
    """Names of the deployments whose pods a router's option chooses."""
    arguments = router["spec"]["template"]["spec"]["containers"][0]["args"]
    if option not in arguments:
        return []
    start = arguments.index(option) + 1
    wanted = dict(pair.split("=") for pair in arguments[start : start + 3])
    return [
        name
        for name, one in deployments.items()
        if wanted.items() <= one["spec"]["template"]["metadata"]["labels"].items()
    ]


@pytest.mark.parametrize("replicas", [PAIRS, {Role.AGGREGATED: 4}])
def test_smg_reads_the_options_that_it_is_given(replicas: dict[Role, int]) -> None:
    launch = pytest.importorskip("smg.launch_router", reason="smg is not installed")
    (router,) = [
        d
        for d in documents(replicas=replicas)
        if d["kind"] == "Deployment" and "router" in d["metadata"]["name"]
    ]
    _launch, *options = router["spec"]["template"]["spec"]["containers"][0]["args"]
    read = launch.parse_router_args(options)
    by_role = {
        Role.PREFILL: read.prefill_selector,
        Role.DECODE: read.decode_selector,
        Role.AGGREGATED: read.selector,
    }
    for role, selector in by_role.items():
        component = (selector or {}).get("app.kubernetes.io/component")
        assert component == (role.value if role in replicas else None)
    assert read.pd_disaggregation == (Role.PREFILL in replicas)
    assert (read.service_discovery_port, read.service_discovery_namespace) == (8000, "serving")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_builds_what_is_in_deploy() -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(ROOT / "deploy" / "examples" / "vllm-pd")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kinds = [d["kind"] for d in yaml.safe_load_all(done.stdout)]
    assert kinds.count("Deployment") == 3


def test_the_gate_asks_the_routers_of_all_cells_and_an_api_server_takes_it() -> None:
    cells = (Cell(name="a"), Cell(name="b"))
    with FakeCluster() as cluster:
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "serving"}})
        for document in documents(*cells, replicas=MIXED, gate=GATE):
            cluster.create(document, "serving")
        made = {d["metadata"]["name"]: d for d in cluster.objects("deployments")}
        services = {s["metadata"]["name"]: s for s in cluster.objects("services", "serving")}
    pod = made["poolwise-gate"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    asked = [b for a, b in pairwise(container["args"]) if a == "--router"]
    hosts = [url.removeprefix("http://").removesuffix(".serving:30000") for url in asked]
    assert sorted(hosts) == sorted(name for name in services if "router" in name)
    assert len(hosts) == 4
    service = services["poolwise-gate"]["spec"]
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    # No worker's labels: no router takes the gate for one.
    assert "poolwise.io/cell" not in pod["metadata"]["labels"]
    drain_s = int(container["args"][container["args"].index("--drain-s") + 1])
    assert pod["spec"]["terminationGracePeriodSeconds"] > drain_s


def test_the_gate_reads_the_options_that_it_is_given(tmp_path: Path) -> None:
    """The command line itself takes them, as far as the files that the pod would mount."""
    gate = next(d for d in documents(gate=GATE) if d["metadata"]["name"] == "poolwise-gate")
    (container,) = gate["spec"]["template"]["spec"]["containers"]
    line = [sys.executable, "-m", "planner.service.cli.main", *container["args"]]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "/etc/poolwise/spec.yaml" in done.stderr
    assert "No such option" not in done.stderr


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_builds_a_deployment_with_a_gate(tmp_path: Path) -> None:
    for name, text in render(described(gate=GATE)).items():
        (tmp_path / name).write_text(text)
    line = ["kubectl", "kustomize", str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = [d["metadata"]["name"] for d in yaml.safe_load_all(done.stdout)]
    assert names.count("poolwise-gate") == 2
