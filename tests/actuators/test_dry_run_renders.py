"""Renders of a diff: the patch is applied by git itself."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from actuators.dry_run import (
    read_targets,
    render_manifests,
    render_patch,
    target_counts,
)
from planner.domain.errors import InputError
from planner.domain.fleet import Fleet, Pool, ReplicaShape, Role
from planner.domain.rollout import StepKind
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
TARGETS = """\
targets:
- {role: prefill, accelerator: h100, tp: 2, kind: Deployment, namespace: serving, name: prefill}
- {role: decode, accelerator: h100, tp: 2, kind: Deployment, namespace: serving, name: decode}
"""


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


def _targets(tmp_path: Path, text: str = TARGETS) -> Path:
    path = tmp_path / "targets.yaml"
    path.write_text(text)
    return path


def test_git_applies_the_patch_and_only_the_counts_change(repository: Path, tmp_path: Path) -> None:
    counts = target_counts(DIFF, read_targets(_targets(tmp_path)))
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
        render_patch(target_counts(DIFF, read_targets(_targets(tmp_path))), repository)


def test_manifests_show_a_scale_for_each_changed_target(tmp_path: Path) -> None:
    text = render_manifests(target_counts(DIFF, read_targets(_targets(tmp_path))))
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
def test_kinds_without_scale_show_the_field(tmp_path: Path, kind: str, keys: tuple[str]) -> None:
    targets = f"targets:\n- {{role: decode, kind: {kind}, name: x, part: decode}}\n" + (
        "- {role: prefill, kind: Deployment, name: p}\n"
    )
    text = render_manifests(target_counts(DIFF, read_targets(_targets(tmp_path, targets))))
    shown = yaml.safe_load(text)
    assert shown["kind"] == kind
    assert tuple(shown["spec"]) == keys
    assert "replicas: 4" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("targets: [{role: decode, kind: Pod, name: x}]", "kind 'Pod' is not known"),
        ("targets: [{role: decode, kind: Deployment}]", "no name"),
        ("targets: [{role: decode, kind: StormService, name: x}]", "needs a part"),
        ("targets: [{role: decode, kind: Deployment, name: x, gpu: a}]", "unknown keys gpu"),
        ("targets: []", "no targets"),
        ("targets: [{role: decode, kind: Deployment, name: x, tp: 0}]", "tp must be"),
    ],
)
def test_a_bad_targets_file_is_refused_in_one_sentence(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        read_targets(_targets(tmp_path, text))


def test_a_pool_without_a_target_is_refused(tmp_path: Path) -> None:
    only = "targets: [{role: decode, kind: Deployment, name: x}]"
    with pytest.raises(InputError, match="prefill:h100:tp2 of m needs exactly one target"):
        target_counts(DIFF, read_targets(_targets(tmp_path, only)))
