"""Every reader of a file, on thousands of broken ones: an answer, or an error of ours with words.

`POOLWISE_FUZZ_ROUNDS=5000 pytest tests/fuzz` looks for longer; a failure names its round, and
`POOLWISE_FUZZ_FIRST` begins there.
"""

import contextlib
import gzip
import io
import json
import os
import random
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from forecaster.readers import read_trace
from forecaster.readers.client_tables import read_client_table
from planner.domain.errors import PoolwiseError
from planner.domain.fleet import Role
from planner.service.cli.main import run
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
from profiler.measure.journal import open_journal, read_journal
from profiler.samples import Kind as SampleKind
from profiler.samples import Point, Sample
from serving.fleet.endpoints import (
    FILE_NAME,
    Endpoints,
    RouterEndpoint,
    WorkerEndpoint,
    read_endpoints,
    write_endpoints,
)
from serving.gate.keys import ApiKey, add_key, read_keys
from serving.gate.requests import Kind, read_request
from serving.telemetry.page import Page
from serving.telemetry.vllm_engine import parse_engine, parse_traffic
from tests.fuzz import mutations
from tests.planner.service.examples import CONFIG, NOON, fleet, history, write_json, write_spec
from tests.planner.service.examples import write_trace as write_mooncake
from tests.profiler.imports import examples as others

DOCS = Path(__file__).parents[2] / "docs/examples"
PAGES = Path(__file__).parents[1] / "serving/telemetry/pages"
TEMPLATES = Path(__file__).parents[2] / "planner/service/documents/workload_templates"
ROUNDS = int(os.environ.get("POOLWISE_FUZZ_ROUNDS", "40"))
FIRST = int(os.environ.get("POOLWISE_FUZZ_FIRST", "0"))

FULL_SPEC = {
    "slos": [
        {"model": "tiny", "ttft_s": 0.5, "tpot_s": 0.05, "attainment_ratio": 0.9},
        {"model": "tiny", "request_class": "gold", "ttft_s": 0.4, "tpot_s": 0.05},
    ],
    "budget": {"usd_per_hour": 9, "power_w": 800.5},
    "target": {"kind": "dry_run"},
    "loop": {"mode": "advise", "slow_interval_s": 30, "seed": 4, "deadlines": {"plan_s": 60}},
    "guards": {"max_disrupted_replicas": 2, "stale_observation_s": 99},
    "approval": {"auto_below_replicas": 1, "expires_s": 60},
    "forecast": {
        "window_s": 60.0,
        "horizon_windows": 2,
        "events": [
            {
                "name": "launch",
                "start_at": "2026-11-02T12:00:00Z",
                "end_at": "2026-11-02T14:00:00Z",
                "rate_ratio": 2.0,
            }
        ],
    },
}
EVENTS = {
    "events": [
        {"at_s": 30, "incident": "fail", "pool": "decode:gpu:tp1", "replica": 0},
        {"at_s": 60, "incident": "reclaim", "pool": 0, "replica": 1, "notice_s": 30},
    ]
}
LINK = {"base_s": 1e-5, "flow_bytes_per_s": 4e10, "link_bytes_per_s": 9e10, "source": "measured"}
TOPOLOGY = {"links": {"same_node": LINK, "same_rack": LINK, "cross_rack": LINK}}
AZURE = b"TIMESTAMP,ContextTokens,GeneratedTokens\n" + b"".join(
    b"2023-11-16 18:17:%02d.123456,%d,%d\n" % (n, 300 + n, 20 + n) for n in range(40)
)
BURSTGPT = b"Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n" + b"".join(
    b"%d,ChatGPT,%d,%d,%d,Conversation log\n" % (n, 400 + n, 18, 418 + n) for n in range(40)
)
SETTINGS = {
    "POOLWISE_STATE_DIR": "~/poolwise",
    "POOLWISE_CATALOGUE": "our-accelerators.yaml",
    "POOLWISE_PORT": "8765",
    "POOLWISE_HOST": "127.0.0.1",
    "POOLWISE_KEDA_PORT": "9090",
    "POOLWISE_MAX_BODY_BYTES": "1000000",
    "POOLWISE_REQUESTS_PER_S": "20",
    "POOLWISE_ANSWER_WITHIN_S": "30",
    "POOLWISE_LEASE_DURATION_S": "15",
    "POOLWISE_RENEW_DEADLINE_S": "10",
    "POOLWISE_LEASE_RETRY_S": "2",
    "POOLWISE_KEEP_PLANS_S": "86400",
    "POOLWISE_GATE_RETENTION_S": "3600",
    "POOLWISE_LOG_FORMAT": "json",
    "POOLWISE_WATCH": "chat/gate=http://127.0.0.1:1 search/gate=http://127.0.0.1:2",
    "POOLWISE_WATCH_INTERVAL_S": "5",
    "POOLWISE_PROMETHEUS_URL": "http://127.0.0.1:9090",
    "POOLWISE_PROMETHEUS_SELECTOR": 'namespace="llm-$deployment"',
    "POOLWISE_WEBHOOK_URL": "http://127.0.0.1:3",
    "POOLWISE_WEBHOOK_SECRET": "abc",
    "POOLWISE_NOTIFY_BURN_RATIO": "2",
    "POOLWISE_NOTIFY_REPEAT_S": "600",
    "POOLWISE_TOKEN_FILE": "~/token",
}
CHAT = {
    "model": "tiny",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
    "max_tokens": 5,
    "n": 1,
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.2,
}


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


def said(path: Path, *arguments: str) -> Path:
    """What a command prints, as a file beside its own."""
    write_spec(path.parent)
    write_mooncake(path.parent / "trace.jsonl", minutes=4)
    text = io.StringIO()
    with contextlib.chdir(path.parent), contextlib.redirect_stdout(text):
        assert run([*arguments, "--spec", "spec.yaml", "--trace", "trace.jsonl", "--json"]) == 0
    path.write_text(text.getvalue())
    return path


def written(name: str, content: bytes | str | dict[str, object]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        data = json.dumps(content) if isinstance(content, dict) else content
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
        return folder / name

    return write


def copied(path: Path) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copy(path, folder / path.name))


def docs_spec(folder: Path) -> Path:
    for name in ("profile.json", "spec.yaml"):
        shutil.copy(DOCS / name, folder / name)
    return folder / "spec.yaml"


def keys(folder: Path) -> Path:
    for name in ("shop", "mill"):
        key = ApiKey(name=name, key_hash="", request_class="gold", created_at=NOON.isoformat())
        add_key(folder / "keys.json", key)
    return folder / "keys.json"


def npz(folder: Path) -> Path:
    others.write_dynamo(folder)
    return folder / dynamo.DECODE[0]


def dynamo_json(folder: Path) -> Path:
    for name, arrays in zip(
        ("prefill_raw_data.json", "decode_raw_data.json"), others.dynamo_arrays(), strict=True
    ):
        held = {field: np.asarray(values).tolist() for field, values in arrays.items()}
        write_json(folder / name, held)
    return folder / "decode_raw_data.json"


def endpoints(folder: Path) -> Path:
    worker = WorkerEndpoint(name="d0", role=Role.DECODE, cell="a", url="http://127.0.0.1:1")
    router = RouterEndpoint(cell="a", url="http://127.0.0.1:2", metrics_url="http://127.0.0.1:3")
    write_endpoints(folder, Endpoints(pid=1, model="tiny", routers=(router,), workers=(worker,)))
    return folder / FILE_NAME


def journal(folder: Path) -> Path:
    kept = open_journal(folder / "run.jsonl", {"url": "http://127.0.0.1:1"}, began_at=NOON)
    kept.keep_baseline(0.1, 0.01)
    for turn in range(4):
        kept.add(
            Sample(
                point=Point(kind=SampleKind.DECODE, x=2**turn, y=512),
                values={"step_s": 0.01 * (turn + 1), "context_tokens": 512.0, "first_s": 0.1},
                measured_at=NOON + timedelta(minutes=turn),
                took_s=1.0,
            )
        )
    kept.disturb(NOON + timedelta(minutes=2), "another program ran")
    return kept.path


def checks(folder: Path) -> Path:
    seen = {"seconds": 60, "requests": 9, "batch": 2, "context_tokens": 700, "isl": 600, "osl": 50}
    drift = {"quantity": "TTFT", "verdict": "ok", "observed_s": 0.1, "predicted_s": 0.1}
    check = {
        "checked_at": NOON.isoformat(),
        "profile_id": "tiny",
        "urls": ["http://127.0.0.1:1"],
        "verdict": "ok",
        "tolerance_ratio": 0.15,
        "drifted_since": None,
        "load": {**seen, "computed_ratio": 1, "prefill_share": 0.3},
        "drifts": [{**drift, "ratio": 1, "low": 0.9, "high": 1.1, "samples": 9, "reason": ""}],
        "notes": [],
    }
    (folder / "checks.jsonl").write_text(f"{json.dumps(check)}\n" * 3)
    return folder / "checks.jsonl"


def clients(folder: Path, broken: str) -> Path:
    """A folder of clients, as ServeGen publishes them; the file of it that is broken."""
    lengths = {"input_tokens": "{100: 0.25, 200: 0.75}", "output_tokens": "{10: 1.0}"}
    rates = "0,1.5,2.0,Gamma,0.2,3\n600,0,0,,0,0\n1200,0.5,1.0,Weibull,1,2\n"
    (folder / "chunk-2-trace.csv").write_text(rates)
    write_json(folder / "chunk-2-dataset.json", {"0": lengths, "21600": lengths})
    return folder / broken


def plain_tables(folder: Path) -> Path:
    copied(DOCS / "prefill.csv")(folder)
    return copied(DOCS / "decode.csv")(folder)


def splitwise_table(folder: Path) -> Path:
    rows = [others.splitwise_row(p, b) for p in (128, 512, 2048) for b in (1, 4, 16)]
    return others.write_splitwise(folder / "data.csv", *rows)


def runs(folder: Path, of: Callable[..., dict[str, object]]) -> Path:
    """Runs at several loads with prompts of several lengths; the one that is broken."""
    for count in (8, 32):
        write_json(folder / f"run-{count}.json", of(concurrency=count, input_tokens=100 * count))
    return write_json(folder / "run.json", of(concurrency=1))


def beside(path: Path) -> list[Path]:
    return sorted(path.parent.glob("run-*.json"))


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
