"""The example deployment is what the documented command writes."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

from tests.kubernetes import FakeCluster
from tests.kubernetes.simulation import ControllerSimulation
from tests.planner.service.examples import write_spec

ROOT = Path(__file__).parents[2]
EXAMPLE = "deploy/examples/vllm-pd"
COMMAND = re.compile(rf"^poolwise (deployment render .*) --out {EXAMPLE}$", re.MULTILINE)


def test_the_documented_command_writes_the_example_and_an_api_server_takes_it(
    tmp_path: Path,
) -> None:
    (command,) = COMMAND.findall((ROOT / "docs" / "serving" / "fleet.md").read_text())
    arguments = [*shlex.split(command), "--out", str(tmp_path / "out")]
    subprocess.run(
        [sys.executable, "-m", "planner.service.cli.main", *arguments],
        check=True,
        capture_output=True,
        timeout=120,
        env={**os.environ, "POOLWISE_STATE_DIR": str(tmp_path / "state")},
    )
    written, kept = (
        {path.name: path.read_text() for path in folder.iterdir()}
        for folder in (tmp_path / "out", ROOT / EXAMPLE)
    )
    assert written == kept
    kustomization = yaml.safe_load(written.pop("kustomization.yaml"))
    assert sorted(kustomization["resources"]) == sorted(written)
    with FakeCluster() as cluster:
        for text in written.values():
            cluster.load(text, namespace=kustomization["namespace"])
        assert len(cluster.objects("deployments", kustomization["namespace"])) == 3


def test_the_example_can_be_steered(tmp_path: Path) -> None:
    """Nothing in it stands in the way of one replica more or less."""
    with FakeCluster(crds="all") as cluster:
        for name in yaml.safe_load((ROOT / EXAMPLE / "kustomization.yaml").read_text())[
            "resources"
        ]:
            cluster.load((ROOT / EXAMPLE / name).read_text(), namespace="default")
        simulation = ControllerSimulation(cluster, startup_s=1.0)
        simulation.step()
        simulation.step(60.0)
        target = {
            "kind": "kubernetes",
            "kubeconfig": str(cluster.kubeconfig(tmp_path / "config")),
            "objects": [
                {"role": role, "kind": "Deployment", "name": f"poolwise-local-{role}"}
                for role in ("prefill", "decode")
            ],
        }
        write_spec(tmp_path, target=target)
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "planner.service.cli.main"),
                "validate",
                "--spec",
                "spec.yaml",
            ],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "POOLWISE_STATE_DIR": str(tmp_path)},
        )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "poolwise-local-decode" in ended.stdout
