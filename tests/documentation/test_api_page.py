"""The page on the API: its commands run as they stand, and it names every route."""

import os
import re
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml

from planner.service.api.examples import SPEC
from tests.planner.service.served import served

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/api.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
SMALL = ROOT / "docs/examples/small.yaml"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of the small spec; (folder, facts that it printed)."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "spec.yaml").write_text(SMALL.read_text())
    with (folder / "log").open("w") as log, served(folder, log=log) as (_, facts):
        yield folder, facts


def ran(blocks, folder, facts):
    """Blocks of the page as one script, until the first command that fails."""
    return subprocess.run(
        ["bash", "-c", "set -euo pipefail\n" + "\necho\n".join(blocks)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=240,
        env={**os.environ, "URL": facts["url"], "TOKEN": facts["token"]},
    )


def test_the_commands_of_the_page_run_one_after_another(server):
    done = ran(BLOCKS, *server)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(BLOCKS) > 6
    assert "event: done" in done.stdout


def test_a_plan_that_takes_long_is_approved_and_applied_by_the_same_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("POOLWISE_ANSWER_WITHIN_S", "0.001")  # every plan is a job
    (tmp_path / "spec.yaml").write_text(SMALL.read_text())
    with (tmp_path / "log").open("w") as log, served(tmp_path, log=log) as (_, facts):
        done = ran([*BLOCKS[:3], "api $URL/v1/jobs"], tmp_path, facts)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert '"kind":"plans","state":"done"' in done.stdout
    assert '"state":"applied"' in done.stdout


def test_the_page_names_every_route(server):
    _, facts = server
    paths = httpx.get(f"{facts['url']}/openapi.json", timeout=60).json()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert {route for route in routes if f"`{route}`" not in PAGE} == set()
    named = set(re.findall(r"`((?:GET|PUT|POST|DELETE) /[^`]+)`", PAGE.partition("## Routes")[2]))
    assert named <= routes


def test_the_small_spec_is_the_one_of_the_examples():
    assert yaml.safe_load(SMALL.read_text()) == SPEC
