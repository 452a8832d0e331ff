"""Every reader of a file, on thousands of broken ones: an answer, or an error of ours with words.

`POOLWISE_FUZZ_ROUNDS=5000 pytest tests/fuzz` looks for longer; a failure names its round, and
`POOLWISE_FUZZ_FIRST` begins there.
"""

import contextlib
import gzip
import json
import os
import random
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from forecaster.readers import read_trace
from forecaster.readers.client_tables import read_client_table
from planner.domain.errors import PoolwiseError
from planner.service.documents.circumstances import read_events, read_topology
from planner.service.documents.fleet import read_fleet
from planner.service.documents.forecast import read_forecast
from planner.service.documents.history import read_history, windows_of
from planner.service.documents.plan import read_plan
from planner.service.documents.profile_check import read_check_history
from planner.service.documents.trace_description import read_trace_description
from planner.service.settings import read_settings
from planner.service.spec.catalogue import read_catalogue
from planner.service.spec.file import read_spec
from planner.service.spec.model_config import read_model_config
from profiler.files import read_profile
from profiler.imports import (
    aiperf,
    distserve,
    dynamo,
    guidellm,
    plain_csv,
    splitwise,
    vllm_bench,
)
from profiler.imports.links import read_transfers
from profiler.measure.journal import read_journal
from serving.fleet.endpoints import (
    read_endpoints,
)
from serving.gate.keys import read_keys
from serving.gate.requests import Kind, read_request
from serving.telemetry.page import Page
from serving.telemetry.vllm_engine import parse_engine, parse_traffic
from tests.fuzz import mutations
from tests.fuzz.samples import (
    AZURE,
    BURSTGPT,
    CHAT,
    DOCS,
    EVENTS,
    FULL_SPEC,
    SETTINGS,
    TOPOLOGY,
    beside,
    checks,
    clients,
    copied,
    docs_spec,
    dynamo_json,
    endpoints,
    journal,
    keys,
    npz,
    runs,
    said,
    splitwise_table,
    written,
)
from tests.planner.service.examples import CONFIG, NOON, fleet, history, write_json, write_spec
from tests.planner.service.examples import write_trace as write_mooncake
from tests.profiler.imports import examples as others

PAGES = Path(__file__).parents[1] / "serving/telemetry/pages"
TEMPLATES = Path(__file__).parents[2] / "planner/service/documents/workload_templates"
ROUNDS = int(os.environ.get("POOLWISE_FUZZ_ROUNDS", "40"))
FIRST = int(os.environ.get("POOLWISE_FUZZ_FIRST", "0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """How a file comes about, how it is broken, and who reads it.

    Parameters
    ----------
    write : callable
        Writes a good file into a folder, and what it stands on; the file.
    """

    write: Callable[[Path], Path]
    breaking: Callable[[bytes, random.Random], bytes]
    read: Callable[[Path], object]


def as_history(path: Path) -> object:
    return windows_of(read_history(path).history, where=str(path))


def as_splitwise(path: Path) -> object:
    table = splitwise.read_table(path)
    return splitwise.imported_from(table, model="llama2-70b", accelerator="a100-80gb", tp=8)


def as_trace(path: Path) -> object:
    return read_trace(path).workload


def as_page(path: Path) -> object:
    text = path.read_text(encoding="utf-8", errors="replace")
    page = Page.parse(text, at_s=0.0, source="the engine")
    for source in page.sources():
        page.model(source)
    return page, page.started_at_s


def as_engine(path: Path) -> object:
    text = path.read_text(encoding="utf-8", errors="replace")
    with contextlib.suppress(PoolwiseError):
        parse_traffic(text, source="the engine")
    return parse_engine(text, source="the engine")


def as_request(path: Path) -> object:
    return [read_request(path.read_bytes(), kind, disaggregated=True) for kind in Kind]


def as_settings(path: Path) -> object:
    """The file as environment variables, which hold neither zeros nor halves of characters."""
    held = json.loads(path.read_bytes().decode("utf-8", "surrogatepass").encode("ascii", "ignore"))
    words = {key: str(value).replace("\0", "~") for key, value in dict(held).items()}
    return read_settings(words)


def broken_settings(content: bytes, rng: random.Random) -> bytes:
    """One value or another is something else, or what it was with something behind it."""
    held = json.loads(content)
    for key in rng.sample(sorted(held), rng.choice((1, 1, 2))):
        odd = rng.choice((*mutations.ODD_VALUES, *mutations.ODD_WORDS, "~nobody/x", "a/b=c", "="))
        held[key] = str(odd) if rng.random() < 0.7 else f"{held[key]}{odd}"
    return json.dumps(held).encode()


WORKLOADS = {path.stem: path for path in sorted(TEMPLATES.glob("*.yaml"))}
METRICS = {path.stem: path for path in sorted(PAGES.glob("*.txt"))}
LINES, TREES = mutations.broken_lines, mutations.broken_json

READERS = {
    "spec": Reader(
        write=lambda folder: write_spec(folder, **FULL_SPEC),
        breaking=mutations.broken_yaml,
        read=read_spec,
    ),
    "spec of the docs": Reader(write=docs_spec, breaking=mutations.broken_yaml, read=read_spec),
    "spec as text": Reader(write=docs_spec, breaking=LINES, read=read_spec),
    "profile beside a spec": Reader(
        write=lambda folder: docs_spec(folder).with_name("profile.json"),
        breaking=TREES,
        read=lambda path: read_spec(path.with_name("spec.yaml")),
    ),
    "accelerators": Reader(
        write=copied(DOCS / "our-accelerators.yaml"),
        breaking=mutations.broken_yaml,
        read=read_catalogue,
    ),
    "model config": Reader(
        write=written("config.json", CONFIG), breaking=TREES, read=read_model_config
    ),
    "profile": Reader(write=copied(DOCS / "profile.json"), breaking=TREES, read=read_profile),
    "history": Reader(
        write=lambda f: write_json(f / "history.json", {"history": history(5), "fleet": fleet()}),
        breaking=TREES,
        read=as_history,
    ),
    "fleet": Reader(
        write=lambda folder: write_json(write_spec(folder).with_name("fleet.json"), fleet()),
        breaking=TREES,
        read=lambda path: read_fleet(
            path, spec=read_spec(path.with_name("spec.yaml")), read_at=NOON
        ),
    ),
    "forecast": Reader(
        write=lambda folder: said(folder / "out.json", "forecast"),
        breaking=TREES,
        read=read_forecast,
    ),
    "plan": Reader(
        write=lambda folder: said(folder / "out.json", "plan"), breaking=TREES, read=read_plan
    ),
    "events": Reader(
        write=lambda folder: write_json(folder / "events.yaml", EVENTS),
        breaking=mutations.broken_yaml,
        read=read_events,
    ),
    "topology": Reader(
        write=lambda folder: write_json(folder / "topology.yaml", TOPOLOGY),
        breaking=mutations.broken_yaml,
        read=read_topology,
    ),
    **{
        f"workload {name}": Reader(
            write=copied(path), breaking=mutations.broken_yaml, read=read_trace_description
        )
        for name, path in WORKLOADS.items()
    },
    "trace of Mooncake": Reader(
        write=lambda folder: write_mooncake(folder / "trace", minutes=0.3),
        breaking=mutations.broken_json_lines,
        read=as_trace,
    ),
    "trace of Azure": Reader(write=written("trace", AZURE), breaking=LINES, read=as_trace),
    "trace of BurstGPT": Reader(write=written("trace", BURSTGPT), breaking=LINES, read=as_trace),
    "trace, compressed": Reader(
        write=written("trace.gz", gzip.compress(AZURE, mtime=0)),
        breaking=mutations.broken_bytes,
        read=as_trace,
    ),
    "vllm bench serve": Reader(
        write=lambda folder: runs(folder, others.vllm_result),
        breaking=TREES,
        read=lambda path: vllm_bench.read([path, *beside(path)]),
    ),
    "guidellm": Reader(
        write=lambda folder: write_json(
            folder / "run.json",
            others.guidellm_report(
                others.guidellm_benchmark(), others.guidellm_benchmark(streams=4)
            ),
        ),
        breaking=TREES,
        read=lambda path: guidellm.read([path]),
    ),
    "AIPerf": Reader(
        write=lambda folder: runs(folder, others.aiperf_summary),
        breaking=TREES,
        read=lambda path: aiperf.read([path, *beside(path)]),
    ),
    "Dynamo, NPZ": Reader(
        write=npz,
        breaking=mutations.broken_bytes,
        read=lambda path: dynamo.read(path.parents[1], tp=2),
    ),
    "Dynamo, JSON": Reader(
        write=dynamo_json, breaking=TREES, read=lambda path: dynamo.read(path.parent, tp=2)
    ),
    "Splitwise": Reader(write=splitwise_table, breaking=LINES, read=as_splitwise),
    "DistServe": Reader(
        write=written("times.json", others.DISTSERVE),
        breaking=TREES,
        read=lambda path: distserve.read(path, model="facebook/opt-13b", tp=2),
    ),
    "DistServe's caches": Reader(
        write=written("kv.csv", others.DISTSERVE_KV),
        breaking=LINES,
        read=lambda path: distserve.read_kv_tokens(path, "facebook/opt-13b"),
    ),
    "plain tables": Reader(
        write=lambda folder: (
            copied(DOCS / "prefill.csv")(folder),
            copied(DOCS / "decode.csv")(folder),
        )[1],
        breaking=LINES,
        read=lambda path: plain_csv.read([path, path.with_name("prefill.csv")]),
    ),
    "transfers": Reader(write=copied(DOCS / "transfers.csv"), breaking=LINES, read=read_transfers),
    "endpoints of a deployment": Reader(
        write=endpoints, breaking=TREES, read=lambda path: read_endpoints(path.parent)
    ),
    "journal of measurements": Reader(
        write=journal, breaking=mutations.broken_json_lines, read=read_journal
    ),
    "history of checks": Reader(
        write=checks, breaking=mutations.broken_json_lines, read=read_check_history
    ),
    "rates of clients": Reader(
        write=lambda folder: clients(folder, "chunk-2-trace.csv"),
        breaking=LINES,
        read=lambda path: read_client_table(path.parent),
    ),
    "lengths of clients": Reader(
        write=lambda folder: clients(folder, "chunk-2-dataset.json"),
        breaking=TREES,
        read=lambda path: read_client_table(path.parent),
    ),
    "settings": Reader(
        write=written("settings.json", SETTINGS), breaking=broken_settings, read=as_settings
    ),
    "keys of the gate": Reader(write=keys, breaking=TREES, read=read_keys),
    "request to the gate": Reader(
        write=written("body.json", CHAT), breaking=TREES, read=as_request
    ),
    **{
        f"metrics of {name}": Reader(write=copied(path), breaking=LINES, read=as_page)
        for name, path in METRICS.items()
    },
    "metrics of an engine": Reader(
        write=copied(METRICS["vllm-decode-1"]), breaking=LINES, read=as_engine
    ),
}


def fault(read: Callable[[Path], object], path: Path) -> str | None:
    """What is wrong with how a file was read; None: an answer, or an error of ours with words."""
    try:
        read(path)
    except PoolwiseError as error:
        return None if len(str(error)) > 10 else f"says only {error!r}"
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        return f"{at.filename}:{at.lineno}: {error!r}"
    return None


@pytest.mark.parametrize("name", READERS)
def test_a_broken_file_is_read_or_refused_in_words(tmp_path, name):
    reader = READERS[name]
    path = reader.write(tmp_path)
    good = path.read_bytes()
    reader.read(path)  # what is broken below is whole before
    faults = []
    for turn in range(FIRST, FIRST + ROUNDS):
        content = reader.breaking(good, random.Random(f"{name}, round {turn}"))
        path.write_bytes(content)
        found = fault(reader.read, path)
        if found is not None:
            kept = tmp_path / f"round-{turn}-{path.name}"
            kept.write_bytes(content)
            faults.append(f"round {turn} ({kept}), {found}")
    assert not faults, "\n".join(faults)
    path.write_bytes(good)
    reader.read(path)  # nothing of the others is left behind
