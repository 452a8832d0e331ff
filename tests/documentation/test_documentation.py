"""What the documentation shows exists and works."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from planner.service.documents import read_history
from planner.service.spec_document import spec_schema

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#]+)")
PATHS = re.compile(r"`((?:planner|forecaster|profiler|serving|actuators)/[\w/.]*)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    links = [page.parent / link for link in LINK.findall(text) if "://" not in link]
    paths = [ROOT / path for path in PATHS.findall(text)]
    assert [str(p) for p in links + paths if not p.exists()] == []


def test_published_schema_is_the_one_that_specs_are_read_by() -> None:
    published = json.loads((ROOT / "docs" / "spec.schema.json").read_text())
    assert published == json.loads(json.dumps(spec_schema())), (
        "run `poolwise validate --schema > docs/spec.schema.json`"
    )


def test_example_history_is_accepted(tmp_path: Path) -> None:
    (example,) = re.findall(
        r"```json\n(.*?)```", (ROOT / "docs/contract.md").read_text(), re.DOTALL
    )
    path = tmp_path / "history.json"
    path.write_text(example)
    document = read_history(path)
    assert document.history[0].start_at == datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert document.fleet is not None


def test_readme_holds_no_placeholder() -> None:
    assert "@@" not in (ROOT / "README.md").read_text()
