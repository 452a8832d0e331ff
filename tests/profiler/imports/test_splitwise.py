"""Splitwise's public table: every number found again, the bad rows refused."""

from itertools import accumulate
from statistics import median

import pytest

from planner.domain.errors import ProfileError
from profiler.imports.splitwise import ARCHITECTURES, alone, imported_from, in_batches, read_table
from tests.profiler.imports.examples import prompt_s, splitwise_row, step_s, write_splitwise

REPLICA = {"model": "llama2-70b", "accelerator": "a100-80gb", "tp": 8}
ROWS = [splitwise_row(prompt=n) for n in (128, 512, 1024)] + [
    splitwise_row(batch=n) for n in (2, 16, 64)
]


@pytest.fixture(scope="module")
def published(poolwise_data):
    return read_table(poolwise_data / "profiles/splitwise-sim/perf_model.csv")


def replicas(table):
    return sorted({(row.model, row.accelerator, row.tp) for row in table.rows})


def medians(rows):
    """The median of each group's values, by group in growing order."""
    groups = {}
    for at, seconds in rows:
        groups.setdefault(at, []).append(seconds)
    return {at: median(groups[at]) for at in sorted(groups)}


def lifted_of(measured):
    """How many values lie below one before them."""
    highest = accumulate(measured.values(), max)
    return sum(seconds < high for seconds, high in zip(measured.values(), highest, strict=True))


def test_every_accepted_number_of_the_public_table_is_found_again(published):
    assert len(replicas(published)) == 8
    for model, accelerator, tp in replicas(published):
        own = published.of(model=model, accelerator=accelerator, tp=tp)
        found = imported_from(published, model=model, accelerator=accelerator, tp=tp)
        prompts = medians((row.prompt_tokens, row.prompt_s) for row in alone(own))
        steps = medians((row.sequences, row.token_s) for row in in_batches(own))
        for table, measured in ((found.prefill, prompts), (found.decode_step, steps)):
            assert table.x.tolist() == list(measured)
            highest = list(accumulate(measured.values(), max))
            assert table.seconds[:, 0] == pytest.approx(highest, rel=1e-12)
        lifts = " ".join(note for note in found.notes if "lifted" in note)
        assert lifted_of(prompts) + lifted_of(steps) == lifts.count("(+")


def test_lifted_points_of_the_public_table_are_named_with_how_much(published):
    found = imported_from(published, model="llama2-70b", accelerator="h100-80gb", tp=8)
    (note,) = [note for note in found.notes if note.startswith("prefill: lifted")]
    assert "256 new tokens" in note
    assert "(+12.6%)" in note


def test_its_known_bad_rows_are_refused_with_the_reason(published):
    assert {row.accelerator for row in published.rows} == {"a100-80gb", "h100-80gb"}
    assert not [r for r in published.rows if (r.model, r.tp, r.sequences) == ("llama2-70b", 2, 64)]
    scaled, invalid = sorted(published.refused, reverse=True)
    assert scaled.startswith("refused: 420 rows of h100-80gb-pcap: scaled")
    assert invalid.startswith("refused: 10 rows of llama2-70b, tp 2, batch 64: invalid")


def test_the_reason_is_true(poolwise_data):
    text = (poolwise_data / "profiles/splitwise-sim/perf_model.csv").read_text()
    rows = [line.split(",") for line in text.splitlines() if line.startswith("llama2-70b")]
    for hardware in ("a100-80gb", "h100-80gb"):
        prompts = {
            batch: [float(r[7]) for r in rows if (r[1], r[3], r[10]) == (hardware, batch, "2")]
            for batch in ("8", "64")
        }
        assert max(prompts["64"]) < min(prompts["8"])


def test_milliseconds_of_single_prompts_and_of_batches_become_seconds(tmp_path):
    found = imported_from(read_table(write_splitwise(tmp_path / "t.csv", *ROWS)), **REPLICA)
    assert found.prefill.x.tolist() == [128, 512, 1024]
    assert float(found.prefill.at(1024, 0)) == pytest.approx(prompt_s(1024))
    assert found.decode_step.x.tolist() == [1, 2, 16, 64]
    assert float(found.decode_step.at(64, 576)) == pytest.approx(step_s(64))
    assert found.held_tokens == 64 * (512 + 128)


def test_values_without_a_place_in_a_profile_are_said(tmp_path):
    found = imported_from(read_table(write_splitwise(tmp_path / "t.csv", *ROWS)), **REPLICA)
    notes = " ".join(found.notes)
    assert "prompt_time of 3 rows with several prompts at once" in notes
    assert "token_time of 2 rows with other prompts than 512 tokens" in notes


def test_bad_rows_are_refused_wherever_they_are(tmp_path):
    rows = [*ROWS, splitwise_row(hardware="h100-80gb-pcap"), splitwise_row(batch=64, tp=2)]
    table = read_table(write_splitwise(tmp_path / "t.csv", *rows))
    assert len(table.rows) == len(ROWS)
    with pytest.raises(ProfileError, match="scaled from h100-80gb, not measured: import h100-80gb"):
        table.of(model="llama2-70b", accelerator="h100-80gb-pcap", tp=8)


def test_a_replica_that_is_not_there_is_told_what_is(tmp_path):
    table = read_table(write_splitwise(tmp_path / "t.csv", *ROWS))
    with pytest.raises(ProfileError, match="there are llama2-70b on a100-80gb, tp 8"):
        table.of(model="llama2-70b", accelerator="a100-80gb", tp=4)


def test_its_models_have_the_kv_cache_of_their_config():
    assert ARCHITECTURES["llama2-70b"].kv_bytes_per_token == 2 * 80 * 8 * 128 * 2
    assert ARCHITECTURES["bloom-176b"].kv_bytes_per_token == 2 * 70 * 14_336 * 2


BAD = [
    ("", "is empty"),
    ("a,b\n1,2\n", "t.csv:1: no column model"),
    (splitwise_row(prompt_ms="nan"), "t.csv:2: prompt_time: nan"),
    (splitwise_row(prompt_ms="-1"), "t.csv:2: prompt_time: -1 ms lies outside"),
    (splitwise_row(token_ms="0.02"), "t.csv:2: token_time: 0.02 ms lies outside"),
    (splitwise_row(token_ms="fast"), "t.csv:2: token_time: 'fast' is no number"),
    (splitwise_row(prompt=51.5), "t.csv:2: prompt_size: 51.5 is no whole number"),
    (splitwise_row()[:30], "t.csv:2: 5 values for 11 columns: half a line?"),
    (splitwise_row(hardware=""), "t.csv:2: hardware: is no name"),
    (splitwise_row(hardware="h100-80gb-pcap"), "no row is left"),
    ("HEADER", "has a header and no rows"),
]


@pytest.mark.parametrize(("content", "said"), BAD)
def test_bad_tables_are_named_with_the_line(tmp_path, content, said):
    path = tmp_path / "t.csv"
    if content.startswith("llama2"):
        write_splitwise(path, content)
    elif content == "HEADER":
        write_splitwise(path)
    else:
        path.write_text(content)
    with pytest.raises(ProfileError) as caught:
        read_table(path)
    assert said in str(caught.value)
