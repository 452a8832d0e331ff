"""The page on operations: what it says to type on the first day, and for a backup, works so."""

import json
import re
import shlex
from pathlib import Path

from planner.service.cli.main import run
from tests.planner.service.examples import CONFIG
from tests.planner.service.served import served

PAGE = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text()


def commands(heading: str) -> list[list[str]]:
    """The arguments of every `poolwise` line in a section's first block."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = section.partition("```\n")[2].partition("```")[0].splitlines()
    told = [re.split(r"\s+# ", line)[0] for line in lines if line.startswith("poolwise ")]
    return [shlex.split(line)[1:] for line in told]


def test_the_commands_of_the_first_day_and_of_a_backup_work_as_they_stand(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POOLWISE_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "MODEL").mkdir()
    (tmp_path / "MODEL" / "config.json").write_text(json.dumps(CONFIG))
    init, doctor, validate, serve = commands("Install")
    assert run(init) == 0
    assert run(doctor) == 1
    assert "none was measured" in capfd.readouterr().out
    assert run(validate) == 0
    assert serve[:3] == ["serve", "--spec", "spec.yaml"]
    back_up, restore, verify = commands("Back up")
    with served(tmp_path, *serve[3:]) as (_, facts):
        assert facts["token"]
        assert run(back_up) == 0
        assert run(verify) == 0
    monkeypatch.setenv("POOLWISE_STATE_DIR", str(tmp_path / "another"))
    assert run(restore) == 0
    assert run(verify) == 0
