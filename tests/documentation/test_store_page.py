"""The page on the store: what it shows of a backup is what one prints now."""

import re
from pathlib import Path

from planner.service.cli.main import run
from planner.service.store import open_store

PAGE = (Path(__file__).resolve().parents[2] / "docs/store.md").read_text()
SIZE = re.compile(r"[\d,]+ rows?, [\d.]+ MB")
"""What another database has another figure of."""


def test_a_backup_prints_what_the_page_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POOLWISE_STATE_DIR", str(tmp_path / "state"))
    open_store(f"sqlite:///{tmp_path / 'state' / 'poolwise.db'}").close()
    command, shown = re.findall(r"\$ poolwise (backup \S+)\n(.+)\n", PAGE)[0]
    assert run(command.split()) == 0
    assert SIZE.sub("-", capsys.readouterr().out.strip()) == SIZE.sub("-", shown)
