"""Good files of every kind that is read; the readers are tried on broken variants of them."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np

from planner.domain.fleet import Role
from planner.service.cli.main import run
from profiler.imports import (
    dynamo,
)
from profiler.measure.journal import open_journal
from profiler.samples import Kind as SampleKind
from profiler.samples import Point, Sample
from serving.fleet.endpoints import (
    FILE_NAME,
    Endpoints,
    RouterEndpoint,
    WorkerEndpoint,
    write_endpoints,
)
from serving.gate.keys import ApiKey, add_key
from tests.planner.service.examples import NOON, write_json, write_spec
from tests.planner.service.examples import write_trace as write_mooncake
from tests.profiler.imports import examples as others

DOCS = Path(__file__).parents[2] / "docs/examples"

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
