"""`poolwise diff` and `poolwise render` as people run them; an API server takes what they print."""

import json
import re
import subprocess
from dataclasses import dataclass

import httpx
import pytest
import yaml

from actuators.kinds import KINDS
from tests.actuators.kubernetes.rig import deployment
from tests.actuators.kubernetes.test_kinds import CASES
from tests.kubernetes import FakeCluster
from tests.planner.service.examples import write_spec

POOLS = [
    {"model": "tiny", "role": role, "accelerator": "cpu", "max_replicas": 8}
    for role in ("prefill", "decode")
]
PINS = {"pins": [{"pool": "decode:cpu:tp1", "replicas": 3}]}
PAIR = [{"role": r, "kind": "Deployment", "name": r} for r in ("prefill", "decode")]
DIFF = ("diff", "--spec", "spec.yaml", "--trace", "trace.jsonl", "--fleet", "fleet.json")
REQUEST = re.compile(r"# PATCH (\S+): (\d+) -> (\d+)")


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str

    @property
    def objects(self):
        return list(yaml.safe_load_all(self.out))


@pytest.fixture
def poolwise(poolwise):
    """Run a command in a folder that has a trace and a fleet of one pair."""
    return lambda *arguments: Done(*poolwise(*arguments))


def with_objects(folder, objects=PAIR, *, kind="metrics", **changes):
    target = {"kind": kind, "namespace": "serving", "objects": objects}
    return write_spec(folder, target=target, **{"pools": POOLS, "guards": PINS, **changes})


class Server:
    """The fake API server by plain HTTP, strict about every field."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.client = httpx.Client(
            base_url=cluster.url, headers={"Authorization": f"Bearer {cluster.admin_token}"}
        )
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "serving"}})

    def post(self, made):
        plural = next(
            k.plural for k in self.cluster.api.registry.kinds.values() if k.kind == made["kind"]
        )
        root = "api" if "/" not in made["apiVersion"] else "apis"
        path = f"/{root}/{made['apiVersion']}/namespaces/serving/{plural}"
        answer = self.client.post(path, params={"fieldValidation": "Strict"}, json=made)
        assert answer.status_code == 201, answer.text

    def patch(self, path, body, content_type, **query):
        return self.client.patch(
            path,
            params={"fieldValidation": "Strict", "fieldManager": "poolwise", **query},
            content=json.dumps(body),
            headers={"Content-Type": content_type},
        )


@pytest.fixture
def server():
    with FakeCluster(crds="all") as cluster:
        made = Server(cluster)
        yield made
        made.client.close()


# -- render -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind", "plural"),
    [
        (("hpa",), "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
        (("keda", "--prometheus", "http://p:9090"), "ScaledObject", "scaledobjects"),
        (("keda", "--scaler", "poolwise.poolwise:9090"), "ScaledObject", "scaledobjects"),
    ],
)
def test_an_api_server_takes_what_render_prints(
    poolwise, tmp_path, server, arguments, kind, plural
):
    with_objects(tmp_path)
    done = poolwise("render", *arguments, "--spec", "spec.yaml")
    assert (done.status, done.err) == (0, "")
    assert [one["kind"] for one in done.objects] == [kind, kind]
    for one in done.objects:
        server.post(one)
    kept = server.cluster.get(plural, "poolwise-decode", "serving")["spec"]
    behavior = kept.get("behavior") or kept["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert [behavior[way]["tolerance"] for way in ("scaleUp", "scaleDown")] == ["0", "0"]


def test_a_field_that_keda_does_not_have_is_refused_by_the_server(poolwise, tmp_path, server):
    with_objects(tmp_path)
    (one, _) = poolwise("render", "keda", "--scaler", "p:1", "--spec", "spec.yaml").objects
    config = one["spec"]["advanced"]["horizontalPodAutoscalerConfig"]
    config["behavior"]["scaleUp"]["tolerence"] = "0"
    with pytest.raises(AssertionError, match=r"unknown field .*scaleUp\.tolerence"):
        server.post(one)


def test_the_adapters_rule_needs_no_spec(poolwise):
    done = poolwise("render", "prometheus-adapter")
    assert done.status == 0
    (rules,) = done.objects
    (rule,) = rules["externalRules"]
    assert rule["name"]["matches"] == "poolwise_desired_replicas"
    assert rule["resources"] == {"namespaced": False}


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({}, ("hpa", "--spec", "none.yaml"), "none.yaml"),
        ({}, ("hpa", "--spec", "empty.yaml"), "empty.yaml"),
        ({"objects": []}, ("hpa",), "has no target.objects"),
        ({"objects": PAIR[:1]}, ("hpa",), "pool decode:cpu:tp1 of tiny needs exactly one object"),
        ({"objects": [*PAIR, PAIR[0]]}, ("hpa",), "found Deployment serving/prefill, Deployment"),
        ({"objects": [PAIR[0] | {"kind": "Pod"}]}, ("hpa",), "kind Pod cannot be steered"),
        ({"objects": [PAIR[0] | {"namespace": "My NS"}]}, ("hpa",), "namespace"),
        (
            {"objects": [PAIR[0], PAIR[1] | {"kind": "StormService", "part": "decode"}]},
            ("hpa",),
            "no scale subresource",
        ),
        ({"pools": [POOLS[0], POOLS[1] | {"max_replicas": None}]}, ("hpa",), "max_replicas"),
        ({}, ("keda",), "--prometheus URL or --scaler ADDRESS"),
        ({}, ("keda", "--prometheus", "http://p", "--scaler", "p:1"), "one of them"),
        ({"kind": "local"}, ("hpa",), "do not go with kind local"),
    ],
)
def test_what_render_cannot_do_is_one_clear_message(poolwise, tmp_path, changes, arguments, said):
    with_objects(tmp_path, **changes)
    (tmp_path / "empty.yaml").write_text("")
    if "--spec" not in arguments:
        arguments = (*arguments, "--spec", "spec.yaml")
    done = poolwise("render", *arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("poolwise: ")
    assert said in done.err


# -- diff -------------------------------------------------------------------------------------


def test_diff_shows_steps_to_people_and_programs(poolwise, tmp_path):
    with_objects(tmp_path, kind="dry_run")
    shown = poolwise(*DIFF)
    assert shown.status == 0
    assert "start  decode:cpu:tp1" in shown.out
    told = json.loads(poolwise(*DIFF, "--json").out)
    assert len(told["steps"]) == len(shown.out.splitlines())
    assert poolwise(*DIFF, "--format", "json").out.count('"kind": "start"') == 2


def sent(done):
    """(path, count before, count planned, object) of everything that `diff` would send."""
    heads = [REQUEST.match(line) for line in done.out.splitlines() if line.startswith("# PATCH")]
    return [
        (head[1], int(head[2]), int(head[3]), one)
        for head, one in zip(heads, done.objects, strict=True)
    ]


def test_the_scales_that_diff_shows_are_taken_by_an_api_server(poolwise, tmp_path, server):
    with_objects(tmp_path, kind="dry_run")
    for name in ("prefill", "decode"):
        text = deployment(name, 1).replace("namespace: default", "namespace: serving")
        server.cluster.load(text)
    done = poolwise(*DIFF, "--format", "manifests")
    assert done.status == 0
    ((path, before, planned, scale),) = sent(done)
    assert (before, planned) == (1, 3)
    answer = server.patch(path, scale, "application/merge-patch+json")
    assert answer.status_code == 200, answer.text
    assert server.cluster.get("deployments", "decode", "serving")["spec"]["replicas"] == 3


def leaves(value, at=""):
    """Every plain value with the path to it."""
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, one in inner for k, v in leaves(one, f"{at}/{key}").items()}
    return {at: value}


@pytest.mark.parametrize("kind", [k for k in sorted(CASES) if k in KINDS and not KINDS[k].scale])
def test_the_fields_that_diff_shows_change_the_count_only(poolwise, tmp_path, server, kind):
    objects = [PAIR[i] | {"kind": kind, "name": "chat", "part": PAIR[i]["role"]} for i in (0, 1)]
    with_objects(tmp_path, objects, kind="dry_run")
    (whole,) = CASES[kind][0]
    server.post({**whole, "metadata": {"name": "chat", "namespace": "serving"}})
    done = poolwise(*DIFF, "--format", "manifests")
    ((path, _, planned, shown),) = sent(done)
    before = leaves(server.client.get(path).json()["spec"])
    answer = server.patch(path, shown, "application/apply-patch+yaml", force="true", dryRun="All")
    assert answer.status_code == 200, answer.text
    after = leaves(answer.json()["spec"])
    changed = {
        k: after.get(k) for k in before.keys() | after.keys() if before.get(k) != after.get(k)
    }
    only_the_count = len(changed) == 1 and list(changed.values()) == [planned] == [3]
    assert only_the_count != ("would replace the whole list" in done.out)


def test_a_patch_is_applied_by_git(poolwise, tmp_path):
    with_objects(tmp_path, kind="dry_run")
    (tmp_path / "deploy").mkdir()
    text = "---".join(deployment(name, 1) for name in ("prefill", "decode"))
    text = text.replace("namespace: default", "namespace: serving")
    (tmp_path / "deploy" / "all.yaml").write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    done = poolwise(*DIFF, "--format", "patch", "--manifests", "deploy")
    assert (done.status, done.err) == (0, "")
    subprocess.run(["git", "apply"], cwd=tmp_path, check=True, input=done.out, text=True)
    counts = [
        one["spec"]["replicas"]
        for one in yaml.safe_load_all((tmp_path / "deploy" / "all.yaml").read_text())
    ]
    assert counts == [1, 3]


PATCH = ("--format", "patch", "--manifests", "deploy")


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({}, ("--spec", "none.yaml"), "none.yaml"),
        ({}, ("--trace", "none.jsonl"), "none.jsonl"),
        ({}, ("--trace", "empty.yaml"), "empty.yaml"),
        ({}, ("--fleet", "none.json"), "none.json"),
        ({}, ("--fleet", "empty.yaml"), "empty.yaml"),
        ({"objects": []}, ("--format", "manifests"), "needs target.objects in spec.yaml"),
        ({"objects": []}, PATCH, "needs target.objects in spec.yaml"),
        ({"objects": PAIR[:1]}, ("--format", "manifests"), "needs exactly one target"),
        ({"objects": [PAIR[0] | {"kind": "RayService"}]}, (), "RayService cannot be steered"),
        ({}, ("--format", "patch"), "--manifests DIR goes with --format patch"),
        ({}, ("--manifests", "deploy"), "--manifests DIR goes with --format patch"),
        ({}, ("--format", "patch", "--manifests", "none"), "none is no folder"),
        ({}, PATCH, "states a count of Deployment serving/prefill"),
    ],
)
def test_what_diff_cannot_do_is_one_clear_message(poolwise, tmp_path, changes, arguments, said):
    """The manifests in `deploy` are of another namespace than the spec's."""
    with_objects(tmp_path, **changes)
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "all.yaml").write_text(deployment("decode", 1))
    done = poolwise(*DIFF, *arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("poolwise: ")
    assert said in done.err
