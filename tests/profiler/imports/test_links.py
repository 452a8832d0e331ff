"""KV transfers over another link: read, labelled, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from planner.domain.errors import ProfileError
from planner.domain.topology import Distance
from profiler.files import read_profile
from profiler.imports.links import over_link, read_transfers

PROFILE = read_profile(Path("docs/examples/profile.json"))
SIZES = (1e6, 4e6, 64e6, 256e6)


def written(folder: Path, rows: list[tuple[object, object]], header: str = "kv_bytes,seconds"):
    path = folder / "transfers.csv"
    path.write_text(header + "\n" + "".join(f"{a},{b}\n" for a, b in rows))
    return path


def line(base_s: float, bytes_per_s: float) -> list[tuple[object, object]]:
    return [(b, base_s + b / bytes_per_s) for b in SIZES]


def test_every_transfer_is_found_again(tmp_path: Path) -> None:
    found = read_transfers(written(tmp_path, line(0.003, 2e9)))
    assert found.points == 4
    assert found.error_ratio < 1e-6
    for size, seconds in line(0.003, 2e9):
        assert float(found.transfer.seconds(np.float64(size))) == pytest.approx(seconds)


def test_profile_names_class_and_source_and_keeps_the_rest(tmp_path: Path) -> None:
    path = written(tmp_path, line(0.003, 2e9))
    over = over_link(PROFILE, path, Distance.CROSS_RACK, "rack 3 to 4, RoCE")
    assert over.transfer.base_s == pytest.approx(0.003)
    assert over.profile_id != PROFILE.profile_id
    assert "cross_rack, imported from transfers.csv: rack 3 to 4, RoCE" in over.provenance.notes[-1]
    assert over.prefill == PROFILE.prefill
    assert over.limits == PROFILE.limits
    assert over.provenance.kind is PROFILE.provenance.kind


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(1e6, 0.1), (64, 0.2)], r"transfers.csv:3: kv_bytes: 64 bytes are no KV cache.*MiB"),
        ([(1e6, 2.0), (64e6, 66.0)], r":2: seconds: 2 s for 1e\+06 bytes are 5e\+05 bytes/s"),
        ([(1e6, 0), (64e6, 1)], r":2: seconds: 0 s is no measurement"),
        ([(1e6, -1), (64e6, 1)], r"seconds: -1 lies outside"),
        ([(1e6, 0.1), (1e6, 0.2)], r"all transfers moved 1e\+06 bytes"),
        ([(1e6, "fast")], r":2: seconds: 'fast' is no number"),
        ([("nan", 0.1)], r"kv_bytes: nan is no measurement"),
        ([], r"has a header and no rows"),
    ],
)
def test_what_is_no_transfer_is_refused_with_its_line(
    tmp_path: Path, rows: list[tuple[object, object]], said: str
) -> None:
    with pytest.raises(ProfileError, match=said):
        read_transfers(written(tmp_path, rows))


def test_other_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no column kv_bytes"):
        read_transfers(written(tmp_path, [(1, 2)], header="mib,ms"))


def test_transfers_without_a_source_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="--source"):
        over_link(PROFILE, written(tmp_path, line(0, 1e9)), Distance.SAME_RACK, "  ")
