"""`poolwise deployment up` as a process of its own, with stub engines."""

import subprocess
import sys
from pathlib import Path

STUB = Path(__file__).resolve().parents[2] / "fakes" / "stub_engine.py"


def write_engine(folder: Path) -> Path:
    """An interpreter whose vLLM is the stub, and beside it a model that it serves."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {STUB} "$@"\n')
    python.chmod(0o755)
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    return python


def start(environment: dict[str, str], tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    """A deployment that takes traffic."""
    line = [sys.executable, "-m", "planner.service.cli.main", "deployment", "up", "--cores", "0"]
    line += ["--model", str(tmp_path / "model"), "--router", "vllm-router", *options]
    process = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for text in process.stderr:
        if "steer it" in text:
            return process
    raise AssertionError(f"it ended with {process.wait()}")
