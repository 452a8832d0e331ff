"""Profile files: what is written is read, what is broken is named."""

import json
import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.domain.errors import ProfileError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.model import Dtype
from profiler.files import (
    profile_document,
    profile_id_of,
    profile_of,
    read_profile,
    with_profile_id,
    write_profile,
)
from tests.fakes.profiles import linear_profile

positive = st.floats(min_value=1e-6, max_value=10.0)


def test_a_written_profile_is_read_as_it_was(tmp_path):
    profile = with_profile_id(linear_profile(tp=2, roles=(Role.DECODE,)))
    write_profile(profile, tmp_path / "p.json")
    again = read_profile(tmp_path / "p.json")
    assert profile_document(again) == profile_document(profile)
    assert again.describes(replace_shape(profile))


def replace_shape(profile):
    return ReplicaShape(role=Role.DECODE, model="tiny", accelerator="cpu", tp=profile.tp)


@given(base=positive, token=positive, bandwidth=st.floats(1.0, 1e12))
@settings(max_examples=30, deadline=None)
def test_reading_back_keeps_every_number_and_the_id(tmp_path_factory, base, token, bandwidth):
    profile = linear_profile(
        prefill_base_s=base, decode_sequence_s=token, transfer_bandwidth_bytes_per_s=bandwidth
    )
    path = tmp_path_factory.mktemp("p") / "p.json"
    write_profile(profile, path)
    again = read_profile(path)
    assert (again.prefill.seconds == profile.prefill.seconds).all()
    assert (again.decode_step.seconds == profile.decode_step.seconds).all()
    assert again.transfer == profile.transfer
    assert again.profile_id == profile_id_of(profile)


def test_equal_content_has_an_equal_id_whatever_it_was_called():
    assert profile_id_of(linear_profile(profile_id="a")) == profile_id_of(linear_profile())


def test_other_content_has_another_id():
    assert profile_id_of(linear_profile(speed=2.0)) != profile_id_of(linear_profile())


def test_a_profile_that_was_changed_by_hand_is_refused_and_the_message_says_how_to_accept(tmp_path):
    path = tmp_path / "p.json"
    write_profile(linear_profile(), path)
    data = json.loads(path.read_text())
    data["first_token_s"] = 0.5
    path.write_text(json.dumps(data))
    with pytest.raises(ProfileError, match="delete the line profile_id"):
        read_profile(path)
    del data["profile_id"]
    path.write_text(json.dumps(data))
    assert read_profile(path).first_token_s == 0.5


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ProfileError, match="poolwise profile run"):
        read_profile(tmp_path / "none.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", '"x"', "[" * 100_000, "9" * 9000])
def test_what_is_no_profile_is_refused(tmp_path, text):
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(ProfileError, match=r"p\.json"):
        read_profile(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "p.json"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ProfileError, match="not a text file"):
        read_profile(path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ProfileError, match="cannot be read"):
        read_profile(tmp_path)


def broken(change):
    data = json.loads(profile_document(linear_profile()).model_dump_json(exclude={"profile_id"}))
    change(data)
    return data


def set_at(*path, value):
    def change(data):
        for part in path[:-1]:
            data = data[part]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (set_at("prefill", "seconds", 0, value=[1.0]), "prefill"),
        (set_at("prefill", "seconds", value=[]), "prefill"),
        (set_at("decode_step", "x", value=[5.0, 1.0]), "decode_step"),
        (set_at("decode_step", "seconds", 0, 0, value=-1.0), "decode_step"),
        (set_at("decode_step", "seconds", 0, 0, value=float("nan")), "decode_step.seconds"),
        (set_at("limits", "kv_capacity_tokens", value=0), "limits.kv_capacity_tokens"),
        (set_at("limits", "kv_capacity_tokens", value=10), "holds no block of 16 tokens"),
        (set_at("step_ratios", value=[5.0, 5.0]), "mean of 1"),
        (set_at("transfer", "bandwidth_bytes_per_s", value=0), "transfer.bandwidth"),
        (set_at("roles", value=["prefil"]), "roles"),
        (set_at("provenance", "measured_at", value="2026-01-01T00:00:00"), "measured_at"),
        (set_at("speed", value=1), "speed"),
    ],
)
def test_the_broken_field_is_named(change, named):
    with pytest.raises(ProfileError, match=named):
        profile_of(broken(change), where="p.json")


def test_a_profile_of_another_schema_version_says_so():
    with pytest.raises(ProfileError, match="update Poolwise if the file is newer"):
        profile_of(broken(set_at("schema_version", value="poolwise/profile/v9")), where="p.json")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "p.json"
    write_profile(linear_profile(), path)
    before = path.read_text()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ProfileError, match="No space left"):
        write_profile(linear_profile(speed=3.0), path)
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["p.json"]


def test_the_id_of_a_role_subset_differs():
    profile = linear_profile()
    assert profile_id_of(replace(profile, roles=(Role.DECODE,))) != profile_id_of(profile)


def test_a_profile_of_the_models_own_formats_keeps_the_id_it_had_before_there_were_others():
    document = profile_document(linear_profile()).model_dump(mode="json")
    older = {k: v for k, v in document.items() if k not in ("weight_dtype", "kv_dtype")}
    older["profile_id"] = profile_id_of(linear_profile())
    assert profile_of(older, where="x").profile_id == older["profile_id"]


def test_formats_survive_the_file_and_decide_what_is_described(tmp_path):
    profile = replace(linear_profile(), weight_dtype=Dtype.FP8, kv_dtype=Dtype.FP8)
    write_profile(profile, tmp_path / "p.json")
    again = read_profile(tmp_path / "p.json")
    assert (again.weight_dtype, again.kv_dtype) == (Dtype.FP8, Dtype.FP8)
    assert again.profile_id != profile_id_of(linear_profile())
    plain = ReplicaShape(role=Role.DECODE, model="tiny", accelerator="cpu")
    assert not again.describes(plain)
    assert again.describes(replace(plain, weight_dtype=Dtype.FP8, kv_dtype=Dtype.FP8))


def test_limits_that_a_shape_leaves_open_are_as_they_were_measured():
    profile = linear_profile(max_num_seqs=64, max_num_batched_tokens=2_048)
    plain = ReplicaShape(role=Role.DECODE, model="tiny", accelerator="cpu")
    assert profile.describes(plain)
    assert profile.describes(replace(plain, max_num_seqs=64, max_num_batched_tokens=2_048))
    assert not profile.describes(replace(plain, max_num_seqs=128))
    assert not profile.describes(replace(plain, max_num_batched_tokens=8_192))
