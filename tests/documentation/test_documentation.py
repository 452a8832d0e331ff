"""What the documentation shows exists and works."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from planner.optimize.equations import equations_table
from planner.service.documents import read_history
from planner.service.documents.candidates import (
    CandidateDocument,
    ContextDocument,
    ShapesAnswer,
)
from planner.service.documents.circumstances import read_events, read_topology
from planner.service.documents.forecast import (
    DemandDocument,
    DriftDocument,
    ForecastDocument,
    ForecastWindowDocument,
)
from planner.service.documents.output_lengths import OutputLengthsDocument, RemainingDocument
from planner.service.documents.paths import ClassPathsDocument, PathsDocument
from planner.service.documents.simulation import (
    FuturesDocument,
    OutcomesDocument,
    SimulatedLatencyDocument,
    SimulationDocument,
)
from planner.service.documents.trace import (
    CacheReuseDocument,
    ClassShareDocument,
    GapDocument,
    JointDocument,
    LengthsDocument,
    PeakDocument,
    TraceDocument,
    WrittenTraceDocument,
)
from planner.service.documents.trace_description import EXAMPLE, read_trace_description
from planner.service.spec.document import ShapesPart, spec_schema
from planner.service.spec.file import read_spec
from planner.service.spec.settings import ForecastPart

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#]+)")
PATHS = re.compile(r"`((?:planner|forecaster|profiler|serving|actuators)/[\w/.]*)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    prose = re.sub(r"`[^`\n]*`", "", text)  # code in brackets is no link
    links = [page.parent / link for link in LINK.findall(prose) if "://" not in link]
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


def test_example_events_and_topology_are_accepted(tmp_path: Path) -> None:
    text = (ROOT / "docs/simulate.md").read_text()
    events, topology = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "example.yaml"
    path.write_text(events)
    assert [event.at_s for event in read_events(path)] == [120, 240, 300]
    path.write_text(topology)
    assert read_topology(path).links.cross_rack.base_s == 0.004


FORECAST = (
    ForecastDocument,
    ForecastWindowDocument,
    DemandDocument,
    DriftDocument,
    OutputLengthsDocument,
    RemainingDocument,
    PathsDocument,
    ClassPathsDocument,
)
SIMULATED = (SimulationDocument, OutcomesDocument, FuturesDocument, SimulatedLatencyDocument)


@pytest.mark.parametrize(
    ("heading", "kinds"),
    [
        ("## A simulation", SIMULATED),
        ("## A forecast", FORECAST),
        ("## Shapes", (ShapesAnswer, CandidateDocument, ContextDocument)),
    ],
)
def test_the_contract_names_every_key(heading: str, kinds: tuple[type[BaseModel], ...]) -> None:
    text = (ROOT / "docs/contract.md").read_text()
    section = text.partition(heading)[2].partition("\n## ")[0]
    keys = {key for kind in kinds for key in kind.model_fields}
    assert {key for key in keys if f"`{key}" not in section} == set()


def test_readme_holds_no_placeholder() -> None:
    assert "@@" not in (ROOT / "README.md").read_text()


def test_the_table_of_constraints_is_made_from_their_docstrings() -> None:
    assert equations_table() in (ROOT / "docs/optimizer.md").read_text()


def test_the_example_of_events_is_read() -> None:
    text = (ROOT / "docs/forecasting-how-to.md").read_text()
    (block,) = re.findall(r"```yaml\n(forecast:.*?)```", text, re.DOTALL)
    part = ForecastPart.model_validate(yaml.safe_load(block)["forecast"])
    assert [event.name for event in part.settings.events] == ["launch", "maintenance"]


def test_the_example_of_a_search_is_read() -> None:
    text = (ROOT / "docs/optimizer.md").read_text()
    (block,) = re.findall(r"```yaml\n(shapes:.*?)```", text, re.DOTALL)
    (part,) = yaml.safe_load(block)["shapes"]
    assert ShapesPart.model_validate(part).model == "llama-70b"
    spec = read_spec(ROOT / "docs/examples/shapes.yaml", allow_estimates=True)
    assert len(spec.pools) > 6


def test_the_example_of_a_trace_description_is_the_printed_one() -> None:
    path = ROOT / "docs/examples/traffic.yaml"
    assert path.read_text() == EXAMPLE
    assert [part.request_class for part in read_trace_description(path).classes] == [
        "chat",
        "batch",
    ]


def test_the_page_on_traces_names_every_key() -> None:
    kinds = (
        TraceDocument,
        PeakDocument,
        LengthsDocument,
        JointDocument,
        GapDocument,
        CacheReuseDocument,
        ClassShareDocument,
        WrittenTraceDocument,
    )
    section = (ROOT / "docs/traces.md").read_text().partition("## The JSON")[2]
    keys = {key for kind in kinds for key in kind.model_fields}
    assert {key for key in keys if f"`{key}" not in section} == set()
