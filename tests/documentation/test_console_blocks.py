"""The commands of pages with real output give the output that the page shows."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "docs/simulate.md",
    "docs/traces.md",
    "docs/forecasting-how-to.md",
    "docs/profiles.md",
)
BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(
        r"```console\n(\$ poolwise .*?)\n```", (ROOT / page).read_text(), re.DOTALL
    )
]
PUBLISHED = {
    "conversation.jsonl": "traces/mooncake_conversation_trace.jsonl",
    "code.csv": "traces/AzureLLMInferenceTrace_code.csv",
    "r1_clients_10min.parquet": "traces/servegen_r1_clients_10min.parquet",
    "r1_lengths_6h.parquet": "traces/servegen_r1_lengths_6h.parquet",
    "perf_model.csv": "profiles/splitwise-sim/perf_model.csv",
    "profiler-a100-80g.distserve.json": "profiles/distserve/profiler-a100-80g.distserve.json",
    "max_num_tokens.csv": "profiles/distserve/max_num_tokens.csv",
}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block[-30:].strip())
def test_a_command_gives_the_output_shown(block: str, tmp_path: Path, poolwise_data: Path) -> None:
    for file in (ROOT / "docs/examples").iterdir():
        shutil.copy(file, tmp_path)
    for name, published in PUBLISHED.items():
        (tmp_path / name).symlink_to(poolwise_data / published)
    command, _, shown = block.replace("\\\n", " ").partition("\n")
    poolwise = Path(sys.executable).with_name("poolwise")
    ran = subprocess.run(
        [str(poolwise), *shlex.split(command)[2:]],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    printed = [_words(line) for line in (ran.stdout + "\n" + ran.stderr).splitlines()]
    missing = [
        line for line in shown.splitlines() if "…" not in line and _words(line) not in printed
    ]
    assert missing == [], ran.stdout + ran.stderr


def _words(line: str) -> str:
    """The line without its layout."""
    return " ".join(word for word in line.split() if set(word) != {"─"})
