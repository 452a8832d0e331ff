"""What a source does not know: stated, by arithmetic, or assumed and said."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from planner.domain.errors import ProfileError
from planner.domain.fleet import Role
from planner.domain.model import Model
from planner.domain.profile import ProfileKind
from profiler.files import profile_document, read_profile, write_profile
from profiler.imports.assembly import Given, Imported, assemble
from tests.fakes.profiles import linear_profile

LLAMA_8B = Model(
    name="m",
    layers=32,
    kv_heads=8,
    head_size=128,
    parameters=8_000_000_000,
    active_parameters=8_000_000_000,
    max_context_tokens=131_072,
)
GIVEN = Given(model="m", accelerator="h100")


def imported(**changes):
    tables = linear_profile(max_batch=48)
    given = Imported(
        prefill=tables.prefill,
        decode_step=tables.decode_step,
        source="test",
        machine="here",
        engine="none",
        measured_at=datetime(2026, 11, 1, tzinfo=UTC),
        points=7,
        held_tokens=20_000,
        longest_tokens=9_000,
        notes=("refused: line 3",),
    )
    return replace(given, **changes)


def notes_of(profile):
    return " | ".join(profile.provenance.notes)


def test_what_was_stated_counts_and_is_not_called_assumed():
    given = replace(
        GIVEN,
        roles=(Role.DECODE,),
        kv_capacity_tokens=300_000,
        kv_bytes_per_token=65_536.0,
        max_num_seqs=32,
        max_num_batched_tokens=4096,
        max_model_len=8192,
        start_up_s=25.0,
        transfer_bytes_per_s=40e9,
    )
    profile = assemble(given, imported())
    limits = profile.limits
    assert limits.kv_capacity_tokens == 300_000
    assert limits.kv_bytes_per_token == 65_536
    assert (limits.max_num_seqs, limits.max_num_batched_tokens) == (32, 4096)
    assert limits.max_model_len == 8192
    assert profile.lifecycle.start_cold_s == profile.lifecycle.start_warm_s == 25.0
    assert profile.transfer.bandwidth_bytes_per_s == 40e9
    for word in ("kv_capacity", "max_num", "max_model_len", "KV cache of", "start-up"):
        assert word not in notes_of(profile)


def test_every_assumption_is_a_note():
    profile = assemble(GIVEN, imported())
    for words in (
        "KV cache of 20,000 tokens, a lower bound",
        "at most 48 sequences",
        "8,192 tokens a step",
        "prompt plus answer up to 9,000 tokens",
        "131,072 bytes of KV cache a token, those of Llama 3 8B",
        "start-up, role flip and drain",
        "KV transfer of 20 ms + bytes at 10 GB/s",
        "10%: too few points",
    ):
        assert words in notes_of(profile)
    assert profile.provenance.notes[0] == "refused: line 3"
    assert profile.provenance.kind is ProfileKind.IMPORTED
    assert profile.limits.kv_capacity_tokens == 20_000


def test_the_config_and_the_memory_give_the_kv_cache_by_arithmetic():
    profile = assemble(replace(GIVEN, architecture=LLAMA_8B, memory_bytes=80e9), imported())
    assert profile.limits.kv_bytes_per_token == 131_072
    assert 350_000 < profile.limits.kv_capacity_tokens < 450_000
    assert "by arithmetic" in notes_of(profile)


def test_arithmetic_that_says_less_than_was_held_is_not_believed():
    found = imported(held_tokens=900_000)
    profile = assemble(replace(GIVEN, architecture=LLAMA_8B, memory_bytes=80e9), found)
    assert profile.limits.kv_capacity_tokens == 900_000
    assert "lower bound" in notes_of(profile)


def test_more_sequences_than_were_measured_are_said():
    assert "known up to 48 sequences" in notes_of(
        assemble(replace(GIVEN, max_num_seqs=200), imported())
    )


def test_the_notes_are_kept_in_the_file(tmp_path):
    profile = assemble(GIVEN, imported())
    write_profile(profile, tmp_path / "p.json")
    assert profile_document(read_profile(tmp_path / "p.json")) == profile_document(profile)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kv_capacity_tokens": 0}, "kv_capacity_tokens must be at least 1"),
        ({"max_model_len": -3}, "max_model_len must be at least 1"),
        ({"kv_bytes_per_token": float("nan")}, "kv_bytes_per_token must be finite"),
        ({"start_up_s": -1.0}, "start_up_s must be finite and above 0"),
        ({"model": ""}, "model must be named"),
    ],
)
def test_impossible_statements_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        replace(GIVEN, **changes)


def test_values_that_make_no_profile_are_an_error_of_the_source():
    with pytest.raises(ProfileError, match="test: these values make no profile"):
        assemble(GIVEN, imported(kv_capacity_tokens=3))
