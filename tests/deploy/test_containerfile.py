"""What can be known of the image without building it: no container engine is needed here."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from planner.service.settings import read_settings
from tests.deploy.containerfile import copied, environment, stages, the

ROOT = Path(__file__).parents[2]
ARGUMENTS, BUILD, IMAGE = stages(ROOT / "deploy" / "Containerfile")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BASE = ROOT / "deploy" / "poolwise" / "base" / "service.yaml"


@pytest.fixture(scope="module")
def pod():
    documents = yaml.safe_load_all(BASE.read_text())
    return next(d for d in documents if d["kind"] == "Deployment")["spec"]["template"]["spec"]


def test_the_user_is_a_number_above_0_and_the_one_of_the_manifests(pod):
    user, group = the(IMAGE, "USER").split(":")
    assert int(user) == int(group) == pod["securityContext"]["runAsUser"] > 0


def test_the_base_is_pinned_to_a_version_and_both_stages_use_it():
    name, value = the(ARGUMENTS, "ARG").split("=", 1)
    assert re.fullmatch(r".*/python:\d+\.\d+\.\d+-slim-bookworm", value)
    assert [stage[0].rest.split()[0] for stage in (BUILD, IMAGE)] == [f"${{{name}}}"] * 2
    lowest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert value.split(":")[-1].startswith(lowest)


def test_packages_come_in_locked_versions_with_extras_that_exist():
    run = the(BUILD, "RUN")
    assert "-c requirements/lock.txt" in run
    extras = re.search(r"\.\[(.*)\]", run).group(1).split(",")
    known = PROJECT["project"]["optional-dependencies"]
    assert set(extras) <= set(known)
    assert "postgres" in extras
    locked = {
        re.split(r"[<>=\[]", line)[0].lower().replace("_", "-")
        for line in (ROOT / "requirements" / "lock.txt").read_text().splitlines()
    }
    needed = [*PROJECT["project"]["dependencies"], *(p for e in extras for p in known[e])]
    names = {re.split(r"[<>=\[]", one)[0].lower() for one in needed}
    assert names <= locked


def test_what_is_copied_is_there_and_is_every_package():
    sources = copied(BUILD)
    assert [source for source in sources if not (ROOT / source).exists()] == []
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(packages) <= set(sources)
    assert PROJECT["project"]["readme"] in sources
    assert set(PROJECT["project"]["license-files"]) <= set(sources)


def test_the_entry_point_is_the_projects_script_and_runs_from_what_is_copied_alone(tmp_path, pod):
    (command,) = json.loads(the(IMAGE, "ENTRYPOINT"))
    module, function = PROJECT["project"]["scripts"][command].split(":")
    for source in copied(BUILD):
        if (ROOT / source).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / source, tmp_path / source, ignore=ignored)
    program = f"import sys; from {module} import {function}; sys.exit({function}())"
    arguments = [pod["containers"][0]["args"][0], "--help"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONSAFEPATH": "", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "control loop" in done.stdout


def test_the_environment_is_understood_and_agrees_with_the_manifests(pod):
    told = environment(IMAGE)
    settings = read_settings(told)
    container = pod["containers"][0]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(settings.storage.state_dir) in mounts
    assert settings.server.host == "0.0.0.0"
    (port,) = container["ports"]
    assert settings.server.port == port["containerPort"] == int(the(IMAGE, "EXPOSE"))
    assert {told["HOME"], str(Path(told["NUMBA_CACHE_DIR"]).parent)} <= mounts
    assert f"{settings.storage.state_dir}" in the(IMAGE, "RUN")
