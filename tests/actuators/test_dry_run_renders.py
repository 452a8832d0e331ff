"""Renders of a diff: the patch is applied by git itself."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from actuators.dry_run import render_manifests, render_patch, target_counts
from actuators.kinds import KINDS
from planner.domain.errors import InputError
from planner.domain.fleet import Fleet, Pool, ReplicaShape, Role
from planner.domain.rollout import StepKind
from planner.domain.target import CountTarget
from tests.actuators.steps import diff_of

DECODE = ReplicaShape(role=Role.DECODE, model="m", accelerator="h100", tp=2)
PREFILL = ReplicaShape(role=Role.PREFILL, model="m", accelerator="h100", tp=2)
FLEET = Fleet(
    pools=(Pool(shape=DECODE, ready=2), Pool(shape=PREFILL, ready=3)),
    read_at=datetime(2026, 1, 1, tzinfo=UTC),
    version="v",
)
DIFF = diff_of(FLEET, DECODE, PREFILL, StepKind.START, StepKind.START)

OBJECTS = """\
# who owns this: serving team
apiVersion: apps/v1
kind: Deployment
metadata: {name: prefill, namespace: serving}
spec:
  replicas: 3   # keep at least 2
---
apiVersion: apps/v1
kind: Deployment
metadata:
    name: decode   # odd indent
    namespace: serving
spec:
    template: {spec: {containers: [{name: replicas, args: ["--replicas: 2"]}]}}
    replicas: 2 # tuned by hand"""
KUSTOMIZATION = "resources: [../base]\nreplicas:\n- name: decode\n  count: 2 # prod\n"


def _target(role: Role, name: str, kind: str = "Deployment", part: str = "") -> CountTarget:
    return CountTarget(
        role=role,
        kind=kind,
        api_version=KINDS[kind].api_version,
        namespace="serving",
        name=name,
        part=part,
    )


PAIR = (_target(Role.PREFILL, "prefill"), _target(Role.DECODE, "decode"))


def _git(folder: Path, *arguments: str, text: str | None = None) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, input=text, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    (folder / "deploy" / "my prod").mkdir(parents=True)
    _git(folder, "init", "-q")
    (folder / "deploy" / "all.yaml").write_bytes(OBJECTS.encode())
    crlf = KUSTOMIZATION.replace("\n", "\r\n").encode()
    (folder / "deploy" / "my prod" / "kustomization.yaml").write_bytes(crlf)
    (folder / "deploy" / "other.yaml").write_text("kind: Service\nmetadata: {name: decode}\n")
    return folder


def test_git_applies_the_patch_and_only_the_counts_change(repository: Path, tmp_path: Path) -> None:
    counts = target_counts(DIFF, PAIR)
    patch = render_patch(counts, repository / "deploy")
    (tmp_path / "p.patch").write_bytes(patch.encode())
    _git(repository, "apply", str(tmp_path / "p.patch"))

    changed = (repository / "deploy" / "all.yaml").read_bytes().decode()
    assert changed == OBJECTS.replace("replicas: 2 #", "replicas: 4 #")
    prod = (repository / "deploy" / "my prod" / "kustomization.yaml").read_bytes().decode()
    assert prod == KUSTOMIZATION.replace("count: 2", "count: 4").replace("\n", "\r\n")
    assert render_patch(counts, repository / "deploy") == ""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("replicas: 2 #", "replicas: &n 2 #", "plain number"),
        ("name: decode ", "name: decoder ", "states a count"),
        ("kind: Deployment", "kind: [", "no YAML"),
    ],
)
def test_what_cannot_be_patched_is_said(
    repository: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    (repository / "deploy" / "my prod" / "kustomization.yaml").unlink()
    (repository / "deploy" / "all.yaml").write_text(OBJECTS.replace(old, new))
    with pytest.raises(InputError, match=said):
        render_patch(target_counts(DIFF, PAIR), repository)


def test_manifests_show_a_scale_for_each_changed_target() -> None:
    text = render_manifests(target_counts(DIFF, PAIR))
    assert text.startswith(
        "# PATCH /apis/apps/v1/namespaces/serving/deployments/decode/scale: 2 -> 4\n"
    )
    assert list(yaml.safe_load_all(text)) == [
        {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {"name": "decode", "namespace": "serving"},
            "spec": {"replicas": 4},
        }
    ]


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("DynamoGraphDeployment", ("components",)),
        ("DisaggregatedSet", ("roles",)),
        ("LLMInferenceService", ("replicas",)),
        ("StormService", ("template",)),
    ],
)
def test_kinds_without_scale_show_the_field(kind: str, keys: tuple[str]) -> None:
    targets = (PAIR[0], _target(Role.DECODE, "x", kind, "decode"))
    text = render_manifests(target_counts(DIFF, targets))
    shown = yaml.safe_load(text)
    assert shown["kind"] == kind
    assert tuple(shown["spec"]) == keys
    assert "replicas: 4" in text


def test_a_pool_without_a_target_is_refused() -> None:
    with pytest.raises(InputError, match="prefill:h100:tp2 of m needs exactly one target"):
        target_counts(DIFF, PAIR[1:])
