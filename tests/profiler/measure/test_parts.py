"""The journal, the watch, where to measure, and what a log says of a start."""

import asyncio
import ctypes
import mmap
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from planner.domain.errors import InputError, ProfileError
from profiler.measure.journal import Journal, open_journal, read_journal
from profiler.measure.start_up import forget_files, start_up_of
from profiler.measure.watch import Watch
from profiler.measure.where import Range, cost_s, largest_doubt
from profiler.samples import Kind, Point, Sample, Samples, mean_of

AT = datetime(2026, 1, 1, tzinfo=UTC)
AREA = Range(
    new_tokens=(32, 1024),
    cached_tokens=(0, 1024),
    sequences=(1, 16),
    context_tokens=(64, 1280),
    longest_tokens=4096,
    block_tokens=128,
)


def sample(kind: Kind, x: int, y: int, seconds: float, *, at: datetime = AT) -> Sample:
    name = "busy_s" if kind is Kind.PREFILL else "step_s"
    return Sample(
        point=Point(kind, x, y),
        values={name: seconds, "context_tokens": float(y)},
        measured_at=at,
        took_s=seconds,
    )


def new_journal(path: Path) -> Journal:
    return open_journal(path, {"of": "this"}, began_at=AT)


def test_journal_gives_back_samples_notes_and_disturbances(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    kept = new_journal(path)
    kept.add(sample(Kind.PREFILL, 64, 0, 0.1))
    kept.add(sample(Kind.DECODE, 2, 64, 0.02, at=AT + timedelta(seconds=9)))
    kept.note("something")
    kept.note("something")
    kept.disturb(AT + timedelta(seconds=5), "slower")
    again = read_journal(path)
    assert again is not None
    assert again.subject == {"of": "this"}
    assert again.samples == kept.samples
    assert again.notes == ["something", "slower"]
    assert [s.disturbed for s in again.samples.taken] == [False, True]


def test_clock_that_is_set_back_sets_the_right_samples_aside(tmp_path: Path) -> None:
    kept = new_journal(tmp_path / "j.jsonl")
    for hours in (0, 5, -1):  # set back after the second
        kept.add(sample(Kind.PREFILL, 64, 0, 0.1, at=AT + timedelta(hours=hours)))
    kept.disturb(AT, "slower", first=2)
    for journal in (kept, new_journal(tmp_path / "j.jsonl")):
        assert [s.disturbed for s in journal.samples.taken] == [False, False, True]


def test_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    new_journal(path).add(sample(Kind.PREFILL, 64, 0, 0.1))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind":"pref')
    again = new_journal(path)
    assert len(again.samples.taken) == 1
    assert path.read_bytes() == whole


def test_journal_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    new_journal(path)
    with pytest.raises(ProfileError, match=r"of this then, that now.*--fresh"):
        open_journal(path, {"of": "that"}, began_at=AT)


def test_journal_of_a_finished_run_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    kept = new_journal(path)
    kept.add(sample(Kind.PREFILL, 64, 0, 0.1))
    kept.finish(AT)
    with pytest.raises(ProfileError, match=r"finished at 2026-01-01 00:00 UTC.*--fresh"):
        new_journal(path)


def test_journal_keeps_which_start_of_the_engine_answered(tmp_path: Path) -> None:
    kept = new_journal(tmp_path / "j.jsonl")
    kept.answered_by("1000.00")
    kept.add(sample(Kind.PREFILL, 64, 0, 0.1))
    kept.answered_by("1000.00")
    assert kept.notes == []
    again = new_journal(kept.path)
    again.answered_by("2000.00")
    assert "started anew between the runs" in again.notes[0]


@pytest.mark.parametrize("text", ["", '{"schema_ver', '{"schema_version":"poolwise/profile-jour'])
def test_journal_whose_first_line_was_cut_off_begins_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(text)
    assert new_journal(path).samples.taken == []
    assert new_journal(path).subject == {"of": "this"}


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"\x80\x81\n", "is not text"), (b'{"something": "else"}', "not a line of")],
)
def test_file_that_is_no_journal_is_refused_and_left_as_it_is(
    tmp_path: Path, data: bytes, said: str
) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(data)
    with pytest.raises(ProfileError, match=said):
        new_journal(path)
    assert path.read_bytes() == data


@pytest.mark.parametrize("line", ["nonsense", '{"kind":"prefill","x":-1}', '{"note":3}'])
def test_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "j.jsonl"
    new_journal(path)
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ProfileError, match=r"j.jsonl, line 2: not a line"):
        new_journal(path)


def reading(*seconds: float) -> Callable[[], Awaitable[tuple[float, float]]]:
    """A sentinel that reads these one after the other, then the last for ever."""
    left = list(seconds)

    async def read() -> tuple[float, float]:
        value = left.pop(0) if len(left) > 1 else left[0]
        return value, value / 10

    return read


def deviation_after(*seconds: float) -> float:
    async def look() -> float:
        watch = Watch(read=reading(*seconds), tolerance_ratio=0.15)
        await watch.warm_up()
        return await watch.deviation()

    return asyncio.run(look())


STEADY = (3.0, 1.0, 1.0, 1.0, 1.0, 1.01, 1.0, 0.99, 1.0)
"""Four warm-up requests, the first one cold, and five of the baseline."""


def test_steady_machine_is_itself() -> None:
    assert deviation_after(*STEADY, 1.02) == 0


def test_slower_machine_is_told_by_how_much() -> None:
    assert deviation_after(*STEADY, 1.4, 1.4, 1.4) == pytest.approx(0.4)


def test_one_slow_reading_is_confirmed_first() -> None:
    assert deviation_after(*STEADY, 1.4, 1.0, 1.0) == 0


def test_prefixes_are_whole_blocks() -> None:
    points = [*AREA.candidates(Kind.PREFILL), *AREA.coarse(Kind.PREFILL)]
    points += AREA.drawn(Kind.PREFILL, 6, seed=1)
    assert all(p.y % AREA.block_tokens == 0 for p in points)
    assert all(AREA.holds(p) for p in points)


def test_drawn_points_are_none_that_is_fitted_and_the_same_each_time() -> None:
    drawn = AREA.drawn(Kind.DECODE, 6, seed=1)
    assert drawn == AREA.drawn(Kind.DECODE, 6, seed=1)
    assert not set(drawn) & {*AREA.candidates(Kind.DECODE), *AREA.coarse(Kind.DECODE)}
    assert len(drawn) == 6


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("new_tokens", (9, 3), "must grow"), ("context_tokens", (64, 4096), "no room for an answer")],
)
def test_impossible_range_is_refused(field: str, value: tuple[int, int], said: str) -> None:
    fields = {
        "new_tokens": (32, 1024),
        "cached_tokens": (0, 0),
        "sequences": (1, 4),
        "context_tokens": (64, 512),
    }
    with pytest.raises(InputError, match=said):
        Range(**(fields | {field: value}), longest_tokens=4096)


def measured() -> Samples:
    """Everything twice and equal, but for one decode point whose samples disagree."""
    points = [*AREA.coarse(Kind.PREFILL), *AREA.coarse(Kind.DECODE)]
    taken = []
    for p in points:
        seconds = 0.01 + 1e-3 * p.x + 1e-6 * p.x * p.y
        taken += [sample(p.kind, p.x, p.y, seconds)] * 3
    spoilt = points[-1]
    taken += [sample(spoilt.kind, spoilt.x, spoilt.y, s) for s in (0.01, 0.2, 0.6)]
    return Samples(taken)


def test_point_whose_samples_disagree_is_measured_again() -> None:
    doubt = largest_doubt(
        measured(), AREA, (Kind.PREFILL, Kind.DECODE), step_tokens=4096, left_s=1e9
    )
    assert doubt is not None
    assert doubt.point.kind is Kind.DECODE
    assert doubt.ratio > 0.1


WITHOUT_CACHE = Range(
    new_tokens=(32, 1024),
    cached_tokens=(0, 0),
    sequences=(1, 16),
    context_tokens=(64, 1280),
    longest_tokens=4096,
    block_tokens=128,
)


def test_coarse_prompts_without_cached_prefixes_test_the_form_too() -> None:
    points = WITHOUT_CACHE.coarse(Kind.PREFILL)
    assert len(points) == 4
    taken = [sample(p.kind, p.x, 0, 0.02 + 1e-3 * p.x * (1 + (p.x > 900))) for p in points]
    doubt = largest_doubt(
        Samples(taken * 9), WITHOUT_CACHE, (Kind.PREFILL,), step_tokens=4096, left_s=1e9
    )
    assert doubt is not None
    assert not doubt.repeated
    assert 0.05 < doubt.ratio < float("inf")


@pytest.mark.parametrize(
    "narrow",
    [{"sequences": (1, 1)}, {"new_tokens": (64, 64)}, {"context_tokens": (256, 256)}],
)
def test_one_batch_or_one_length_makes_a_table_all_the_same(narrow: dict[str, object]) -> None:
    area = replace(AREA, **narrow)  # type: ignore[arg-type]
    for kind in (Kind.PREFILL, Kind.DECODE):
        assert len(set(area.coarse(kind))) >= 3


def test_three_points_leave_every_other_place_in_doubt() -> None:
    taken = [sample(Kind.PREFILL, n, 0, 0.02 + 1e-3 * n) for n in (32, 181, 1024)]
    doubt = largest_doubt(
        Samples(taken * 9), WITHOUT_CACHE, (Kind.PREFILL,), step_tokens=4096, left_s=1e9
    )
    assert doubt is not None
    assert (doubt.repeated, doubt.ratio) == (False, float("inf"))
    assert 60 < doubt.point.x < 100 or 350 < doubt.point.x < 550


@pytest.mark.parametrize("kind", [Kind.PREFILL, Kind.DECODE])
def test_a_run_that_breaks_off_has_the_corners_first(kind: Kind) -> None:
    first = AREA.coarse(kind)[:3]
    assert {max(p.x for p in first), max(p.y for p in first)} == {
        max(p.x for p in AREA.coarse(kind)),
        max(p.y for p in AREA.coarse(kind)),
    }


def test_nothing_that_cannot_be_paid_is_measured() -> None:
    assert largest_doubt(measured(), AREA, (Kind.DECODE,), step_tokens=1, left_s=0.0) is None


def test_price_of_a_point_is_what_it_or_its_like_took() -> None:
    samples = measured()
    known = samples.taken[0].point
    assert cost_s(samples, known) == samples.taken[0].took_s
    assert cost_s(samples, Point(Kind.PREFILL, 1000, 0)) > cost_s(
        samples, Point(Kind.PREFILL, 40, 0)
    )


def test_mean_is_without_extremes_where_there_are_enough() -> None:
    taken = [sample(Kind.DECODE, 1, 64, s) for s in (1.0, 1.0, 1.0, 1.0, 50.0)]
    assert mean_of(taken, "step_s") == 1.0
    assert mean_of(taken[3:], "step_s") == 25.5


LOG = """
(Worker pid=9) INFO 11-28 20:12:13 [default_loader.py:501] Loading weights took 1.97 seconds
(Worker pid=9) INFO [gpu_model_runner.py:5150] Model loading took 14.99 GiB memory and 7.5 seconds
(Worker pid=9) INFO [monitor.py:34] torch.compile takes 21.5 s in total
(EngineCore pid=8) INFO init engine (profile, create kv cache, warmup model) took 40.00 s
"""


def test_start_is_split_by_the_engines_log() -> None:
    start = start_up_of(LOG, 60.0)
    assert (start.total_s, start.load_s, start.compile_s) == (60.0, 7.5, 21.5)
    assert start.warm_up_s == pytest.approx(18.5)
    assert start_up_of("", 5.0).load_s is None


def cached_pages(path: Path) -> int:
    """How many pages of a file are in the page cache, by mincore(2)."""
    size = path.stat().st_size
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as mapped:
        start = ctypes.c_char.from_buffer(mapped)
        libc = ctypes.CDLL(None, use_errno=True)
        address, length = ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size)
        failed = libc.mincore(address, length, pages)
        del start
    if failed:
        pytest.skip("this system does not tell what is in its page cache")
    return sum(page & 1 for page in pages)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system drops no files")
def test_files_are_dropped_from_the_page_cache(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"x" * (1 << 20))
    before = cached_pages(weights)
    assert before > 0
    assert forget_files(tmp_path) == 1 << 20
    if cached_pages(weights) == before and _is_in_memory(tmp_path):
        pytest.skip("a file system in memory drops nothing")
    assert cached_pages(weights) < before / 2


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system drops no files")
def test_file_that_cannot_be_opened_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of another user: root, who runs tests, may open everything."""
    for name in ("mine", "theirs"):
        (tmp_path / name).write_bytes(b"x" * 10)
    opened = os.open

    def refuse(path: Path, flags: int) -> int:
        if path.name == "theirs":
            raise PermissionError(13, "Permission denied")
        return opened(path, flags)

    monkeypatch.setattr(os, "open", refuse)
    assert forget_files(tmp_path) == 10


def _is_in_memory(folder: Path) -> bool:
    """Whether the folder lies on a file system that has no disk."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(len(m[1]), m[2]) for m in mounts if folder.resolve().is_relative_to(m[1])]
    return max(above)[1] in ("tmpfs", "ramfs")
