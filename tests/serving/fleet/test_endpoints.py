import json
from pathlib import Path

import pytest

from planner.domain.errors import EngineError
from planner.domain.fleet import Role
from serving.fleet.endpoints import (
    Endpoints,
    RouterEndpoint,
    WorkerEndpoint,
    forget_endpoints,
    read_endpoints,
    write_endpoints,
)


def some() -> Endpoints:
    return Endpoints(
        pid=7,
        model="tiny",
        routers=(RouterEndpoint(cell="a", url="http://r", metrics_url="http://m/metrics"),),
        workers=(
            WorkerEndpoint(name="prefill-1", role=Role.PREFILL, cell="a", url="http://p"),
            WorkerEndpoint(
                name="decode-2", role=Role.DECODE, cell="a", url="http://d", kv_events="tcp://e"
            ),
        ),
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_endpoints(tmp_path, some())
    assert read_endpoints(tmp_path) == some()
    assert [w.name for w in read_endpoints(tmp_path).of_role(Role.DECODE)] == ["decode-2"]


def test_no_deployment_says_what_to_do(tmp_path: Path) -> None:
    write_endpoints(tmp_path, some())
    forget_endpoints(tmp_path)
    with pytest.raises(EngineError, match="no deployment runs from"):
        read_endpoints(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        (json.dumps({"format": 9}), "format 9"),
        (json.dumps({"format": 1, "pid": 1}), "damaged"),
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "endpoints.json").write_text(text)
    with pytest.raises(EngineError, match=message):
        read_endpoints(tmp_path)
