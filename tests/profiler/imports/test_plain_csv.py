"""Tables of one's own as CSV."""

import pytest

from planner.domain.errors import ProfileError
from profiler.imports.plain_csv import read

PREFILL = "new_tokens,cached_tokens,seconds\n128,0,0.02\n4096,0,0.4\n128,2048,0.025\n"
DECODE = "sequences,context_tokens,seconds\n1,512,0.01\n64,512,0.03\n1,8192,0.012\n16,8192,0.04\n"


@pytest.fixture
def files(tmp_path):
    def write(prefill=PREFILL, decode=DECODE):
        (tmp_path / "p.csv").write_text(prefill)
        (tmp_path / "d.csv").write_text(decode)
        return [tmp_path / "p.csv", tmp_path / "d.csv"]

    return write


def test_every_row_is_found_again_in_either_order_of_files(files):
    found = read(list(reversed(files())))
    assert float(found.prefill.at(128, 2048)) == 0.025
    assert float(found.decode_step.at(16, 8192)) == pytest.approx(0.04)
    assert float(found.decode_step.at(64, 512)) == 0.03
    assert found.points == 7
    assert found.held_tokens == 16 * 8192
    assert found.longest_tokens == 8192


def test_spaces_a_byte_order_mark_and_other_orders_of_columns_are_read(files):
    found = read(files(prefill="\ufeffseconds, new_tokens ,cached_tokens\n0.02,128,0\n"))
    assert float(found.prefill.at(128, 0)) == 0.02


BAD_PREFILL = [
    ("", "p.csv is empty"),
    ("tokens,seconds\n1,2\n", "p.csv:1: neither a column new_tokens nor sequences"),
    ("new_tokens,seconds\n1,2\n", "p.csv:1: no column cached_tokens"),
    ("new_tokens,cached_tokens,seconds,note\n1,0,2,x\n", "p.csv:1: unknown column note"),
    ("new_tokens,cached_tokens,seconds\n", "has a header and no rows"),
    (PREFILL + "12,0\n", "p.csv:5: 2 values for 3 columns: half a line?"),
    (PREFILL + "1024,0,\n", "p.csv:5: seconds: is missing"),
    (PREFILL + "1024,0,nan\n", "p.csv:5: seconds: nan"),
    (PREFILL + "1024,0,-1\n", "p.csv:5: seconds: -1 s lies outside"),
    (PREFILL + "0,0,0.1\n", "p.csv:5: new_tokens: 0 lies outside 1"),
    (PREFILL + "1024,-5,0.1\n", "p.csv:5: cached_tokens: -5 lies outside 0"),
    (PREFILL + "1024,0,110\n", "p.csv:5: seconds: 110 s for 1024 tokens: is it in milliseconds?"),
    (PREFILL + "1024,0,inf\n", "p.csv:5: seconds: inf"),
    (PREFILL + "128,0,0.03\n", "p.csv:5: new_tokens 128, cached_tokens 0: is on line 2 already"),
    (PREFILL + "many,0,0.03\n", "p.csv:5: new_tokens: 'many' is no number"),
    (DECODE, "a second table of sequences"),
    ("new_tokens,cached_tokens,seconds,seconds\n1,0,2,3\n", "p.csv:1: two columns seconds"),
    (PREFILL + "1" * 200_000 + ",0,0.1\n", "p.csv:5: not CSV: field larger than field limit"),
]


@pytest.mark.parametrize(("prefill", "said"), BAD_PREFILL)
def test_bad_tables_of_prompts_are_named_with_the_line(files, prefill, said):
    with pytest.raises(ProfileError) as caught:
        read(files(prefill=prefill))
    assert said in str(caught.value)


def test_a_decode_step_in_milliseconds_is_refused(files):
    with pytest.raises(ProfileError, match=r"d\.csv:2: seconds: 25 s lies outside .* to 10 s"):
        read(files(decode="sequences,context_tokens,seconds\n1,512,25\n"))


def test_one_table_is_not_enough(files):
    with pytest.raises(ProfileError, match="no table with columns sequences,context_tokens"):
        read(files()[:1])
    with pytest.raises(ProfileError, match="no table with columns new_tokens"):
        read([])


def test_prompts_that_take_less_for_more_are_lifted_and_said(files):
    found = read(files(prefill=PREFILL + "256,0,0.019\n"))
    assert float(found.prefill.at(256, 0)) == 0.02
    assert any("256 new tokens at 0 cached tokens from 0.019 to 0.02" in n for n in found.notes)
