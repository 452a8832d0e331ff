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
SMALL = ROOT / "docs/examples/small.yaml"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of the small spec; (folder, facts that it printed)."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "spec.yaml").write_text(SMALL.read_text())
    with (folder / "log").open("w") as log, served(folder, log=log) as (_, facts):
        yield folder, facts


def test_the_commands_of_the_page_run_one_after_another(server):
    folder, facts = server
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    script = "set -euo pipefail\n" + "\necho\n".join(blocks)
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=240,
        env={**os.environ, "URL": facts["url"], "TOKEN": facts["token"]},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(blocks) > 6
    assert "event: done" in done.stdout


def test_the_page_names_every_route(server):
    _, facts = server
    paths = httpx.get(f"{facts['url']}/openapi.json", timeout=60).json()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert {route for route in routes if f"`{route}`" not in PAGE} == set()
    named = set(re.findall(r"`((?:GET|PUT|POST|DELETE) /[^`]+)`", PAGE.partition("## Routes")[2]))
    assert named <= routes


def test_the_small_spec_is_the_one_of_the_examples():
    assert yaml.safe_load(SMALL.read_text()) == SPEC
