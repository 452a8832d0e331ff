"""A real engine is profiled: interrupted, gone on with, and used."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from planner.domain.fleet import Role
from profiler.files import read_profile
from profiler.measure.journal import read_journal

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


def begin(state_dir: Path, out: Path) -> "subprocess.Popen[str]":
    line = [sys.executable, "-m", "planner.service.cli.main", "profile", "run", "--out", str(out)]
    line += ["--role", "aggregated", "--quick", "--budget-s", "110", "--max-prompt", "256"]
    line += ["--max-context", "320", "--max-batch", "4"]
    environment = {**os.environ, "POOLWISE_STATE_DIR": str(state_dir)}
    return subprocess.Popen(
        line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def taken(path: Path) -> int:
    """Samples in a journal."""
    journal = read_journal(path)
    return 0 if journal is None else len(journal.samples.taken)


def test_interrupted_profile_is_kept_and_gone_on_with(state_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "own.json"
    journal = tmp_path / "own.json.journal.jsonl"
    first = begin(state_dir, out)
    deadline = time.monotonic() + 300
    while not (journal.exists() and taken(journal) >= 8):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.5)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=120)
    assert first.returncode not in (0, None)
    assert "Traceback" not in said
    partial = read_profile(out)
    assert partial.details is not None
    assert not partial.details.complete
    had = taken(journal)

    second = begin(state_dir, out)
    _, said = second.communicate(timeout=400)
    assert second.returncode == 0, said
    profile = read_profile(out)
    details = profile.details
    assert details is not None
    assert details.complete
    assert details.samples >= had
    assert profile.roles == (Role.AGGREGATED,)
    assert details.prefix_cache_hit_ratio == 1.0
    assert details.mixed_ratio is not None
    assert 0.2 < details.mixed_ratio < 5
    assert details.memory_bytes is not None
    assert details.start_warm is not None
    assert details.start_warm.load_s is not None
    assert dict(details.facts)["engine version"] in profile.provenance.engine
    assert float(profile.prefill.at(256, 0)) > float(profile.prefill.at(32, 0))
    assert json.loads(out.read_text())["details"]["complete"] is True
