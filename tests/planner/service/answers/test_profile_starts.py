"""In which order `poolwise profile run` starts workers: a cold start is measured alone."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from planner.service.answers.profiling import _start
from serving.workers.launcher import Worker


@dataclass
class Deployment:
    """Starts nothing, and keeps what it was asked."""

    asked: list[str] = field(default_factory=list)
    site: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(model=SimpleNamespace(name="tiny"))
    )

    def start(self, shape):
        self.asked.append(f"start {shape.role}")
        return Worker(name=shape.role, shape=shape, url="", log_path=Path("none"), started_at_s=0.0)

    def await_ready(self, worker):
        self.asked.append(f"await {worker.name}")
        return 60.0 if worker.name == "prefill" else 20.0

    def route(self, worker):
        self.asked.append(f"route {worker.name}")


def started(*, quick: bool):
    asked = SimpleNamespace(is_pair=True, role="pair", accelerator="cpu-slot", tp=1, quick=quick)
    deployment = Deployment()
    return _start(asked, deployment, lambda _text: None), deployment.asked


def test_full_run_measures_its_cold_start_alone_as_its_warm_one():
    launched, order = started(quick=False)
    assert order[:2] == ["start prefill", "await prefill"]
    assert launched.cold is not None
    assert launched.starts_s[launched.cold.name] == 60.0
    assert launched.answering.name == "decode"


def test_quick_run_starts_workers_at_once_and_has_no_cold_start():
    launched, order = started(quick=True)
    assert order[:2] == ["start prefill", "start decode"]
    assert launched.cold is None


@pytest.mark.parametrize("quick", [True, False])
def test_both_workers_are_routed(quick):
    _, order = started(quick=quick)
    assert {"route prefill", "route decode"} <= set(order)
