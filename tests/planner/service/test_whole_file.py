"""Files that are there whole or not at all."""

import os

import pytest

from planner.domain.errors import InputError
from planner.service.whole_file import check_writable, whole_file


def test_a_file_that_is_begun_and_not_finished_leaves_the_old_one_and_no_trace(tmp_path):
    path = tmp_path / "answer.html"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), whole_file(path) as unfinished:
        unfinished.write_text("half of the n" + 9_000 * "e" + "é", encoding="ascii")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_finished_file_replaces_what_a_link_points_at(tmp_path):
    path, link = tmp_path / "answer.html", tmp_path / "link.html"
    link.symlink_to(path)
    with whole_file(link) as unfinished:
        unfinished.write_text("new")
        assert not path.exists()
    assert (path.read_text(), link.is_symlink()) == ("new", True)
    assert {entry.name for entry in tmp_path.iterdir()} == {"answer.html", "link.html"}


def test_a_file_has_the_rights_that_the_user_gives_new_files(tmp_path):
    mask = os.umask(0o077)
    with whole_file(tmp_path / "answer") as unfinished:
        unfinished.write_text("secret")
    os.umask(mask)
    assert (tmp_path / "answer").stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_written_is_said_before_the_work(tmp_path):
    (tmp_path / "plain").write_text("")
    os.mkfifo(tmp_path / "fifo")
    for name, said in {
        ".": "is a folder",
        "none/answer": "there is no folder",
        "plain/answer": "there is no folder",
        "fifo": "is no plain file",
        "x" * 300: "cannot be written",
    }.items():
        with pytest.raises(InputError, match=rf"^--plot: .*{said}"):
            check_writable(tmp_path / name, option="--plot")


def test_what_is_read_is_not_written_over_by_whatever_name(tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text("")
    with pytest.raises(InputError, match="given for something else"):
        check_writable(tmp_path / ".." / tmp_path.name / "spec.yaml", option="-o", inputs=[spec])
    check_writable(tmp_path / "other", option="-o", inputs=[spec])
    assert list(tmp_path.iterdir()) == [spec]
