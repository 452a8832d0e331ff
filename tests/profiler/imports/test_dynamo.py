"""Folders of Dynamo's profiler: read, written, and read again."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.interpolate import griddata, interp1d

from planner.domain.errors import ProfileError
from planner.domain.profile import TimeTable
from profiler.imports.assembly import Given, assemble
from profiler.imports.dynamo import read, write
from tests.fakes.profiles import linear_profile
from tests.profiler.imports.examples import (
    DECODE,
    ISL,
    KV_TOKENS,
    dynamo_arrays,
    prompt_s,
    step_s,
    write_dynamo,
)


def test_every_point_is_found_again_in_seconds(tmp_path):
    found = read(write_dynamo(tmp_path), tp=2)
    for tokens in ISL:
        assert float(found.prefill.at(tokens, 0)) == pytest.approx(prompt_s(tokens))
    for batch, context in DECODE:
        assert float(found.decode_step.at(batch, context)) == pytest.approx(step_s(batch, context))
    assert found.kv_capacity_tokens == KV_TOKENS
    assert found.points == len(ISL) + len(DECODE)


def test_cells_beyond_the_kv_cache_are_said_to_be_continued(tmp_path):
    found = read(write_dynamo(tmp_path), tp=2)
    assert found.decode_step.seconds.shape == (4, 2)
    assert any("1 continued beyond the largest measured sequences" in n for n in found.notes)


def test_another_number_of_gpus_than_its_throughput_says_is_noted(tmp_path):
    found = read(write_dynamo(tmp_path, gpus=4), tp=2)
    assert any("4 GPUs a replica, but tp 2 was stated" in note for note in found.notes)


def test_the_json_files_hold_the_same(tmp_path):
    prefill, decode = dynamo_arrays()
    decode["max_kv_tokens"] = KV_TOKENS
    for name, arrays in (("prefill", prefill), ("decode", decode)):
        lists = {key: np.asarray(value).tolist() for key, value in arrays.items()}
        (tmp_path / f"{name}_raw_data.json").write_text(json.dumps(lists))
    as_npz = read(write_dynamo(tmp_path / "npz"), tp=2)
    as_json = read(tmp_path, tp=2)
    assert (as_json.decode_step.seconds == as_npz.decode_step.seconds).all()
    assert as_json.kv_capacity_tokens == KV_TOKENS


def gridded(tp=1):
    """A profile as it is measured: times of the examples over several lengths and batches."""
    tokens, cached = np.array([100.0, 1000.0, 4000.0]), np.array([0.0, 1024.0])
    batch, context = np.array([1.0, 8.0, 64.0]), np.array([256.0, 2048.0])
    return replace(
        linear_profile(tp=tp, kv_capacity_tokens=50_000),
        prefill=TimeTable(
            x_name="new tokens",
            y_name="cached tokens",
            x=tokens,
            y=cached,
            seconds=prompt_s(tokens)[:, None] + 1e-6 * cached,
        ),
        decode_step=TimeTable(
            x_name="sequences",
            y_name="context tokens",
            x=batch,
            y=context,
            seconds=step_s(batch[:, None], context),
        ),
    )


def assembled(folder, tp):
    given = Given(model="tiny", accelerator="cpu", tp=tp)
    return assemble(given, read(folder, tp=tp))


@pytest.mark.parametrize("tp", [1, 4])
def test_an_exported_profile_comes_back_with_the_same_times(tmp_path, tp):
    profile = gridded(tp)
    written = write(profile, tmp_path)
    again = assembled(tmp_path, tp)
    assert again.limits.kv_capacity_tokens == 50_000
    for x in again.prefill.x:
        assert float(again.prefill.at(x, 0)) == pytest.approx(float(profile.prefill.at(x, 0)))
    data = np.load(written.files[1])
    assert len(data["z_itl"]) == 5  # 64 sequences of 2,048 tokens are more than the cache
    for usage, context, itl in zip(
        data["x_kv_usage"], data["y_context_length"], data["z_itl"], strict=True
    ):
        batch = usage * 50_000 / context
        assert itl / 1e3 == pytest.approx(float(profile.decode_step.at(batch, context)))
        assert float(again.decode_step.at(batch, context)) == pytest.approx(itl / 1e3)
    assert not any("GPUs a replica" in note for note in again.provenance.notes)


def test_an_imported_folder_is_exported_as_it_was(tmp_path):
    profile = assembled(write_dynamo(tmp_path / "theirs"), 2)
    write(profile, tmp_path / "ours")
    for name in ("selected_prefill_interpolation", "selected_decode_interpolation"):
        theirs = np.load(tmp_path / "theirs" / name / "raw_data.npz")
        ours = np.load(tmp_path / "ours" / name / "raw_data.npz")
        assert sorted(theirs.files) == sorted(ours.files)
    rows = [
        {
            (round(float(u), 6), float(c)): float(t)
            for u, c, t in zip(d["x_kv_usage"], d["y_context_length"], d["z_itl"], strict=True)
        }
        for d in (theirs, ours)
    ]
    assert rows[0] == pytest.approx(rows[1])
    assert theirs["max_kv_tokens"] == ours["max_kv_tokens"]


def test_what_the_format_cannot_hold_is_said(tmp_path):
    notes = " ".join(write(gridded(), tmp_path).notes)
    assert "no KV transfer, engine limits" in notes
    assert "only the column with 0 was written, 1 others were not" in notes
    assert "1 of 6 decode points hold more tokens than the KV cache" in notes


def test_a_table_that_begins_at_nothing_is_written_at_doublings(tmp_path):
    profile = linear_profile(decode_context_token_s=1e-7, kv_capacity_tokens=50_000)
    written = write(profile, tmp_path)
    prompts, steps = (np.load(file) for file in written.files)
    assert prompts["prefill_isl"].tolist() == [*(128.0 * 2**k for k in range(7)), 16_384]
    assert prompts["prefill_ttft"] / 1e3 == pytest.approx(
        profile.prefill.at(prompts["prefill_isl"], 0)
    )
    batch = steps["x_kv_usage"] * 50_000 / steps["y_context_length"]
    assert steps["z_itl"] / 1e3 == pytest.approx(
        profile.decode_step.at(batch, steps["y_context_length"])
    )
    assert (steps["x_kv_usage"] <= 1).all()
    assert len(batch) > 30


def test_what_is_exported_is_enough_for_the_planner_that_reads_it(tmp_path):
    """It lays a cubic spline through the prompts and a surface through the steps."""
    profile = gridded()
    written = write(profile, tmp_path)
    prompts, steps = (np.load(file) for file in written.files)
    assert len(prompts["prefill_isl"]) >= 4
    spline = interp1d(prompts["prefill_isl"], prompts["prefill_ttft"], kind="cubic")
    assert float(spline(1000.0)) / 1e3 == pytest.approx(float(profile.prefill.at(1000, 0)))
    at = (steps["x_kv_usage"], steps["y_context_length"])
    found = griddata(at, steps["z_itl"], (at[0][:1], at[1][:1]), method="cubic")
    assert float(found[0]) == pytest.approx(float(steps["z_itl"][0]))
    assert any("3 prompt lengths are too few" in note for note in written.notes)


def test_steps_that_were_not_measured_are_not_exported(tmp_path):
    profile = gridded()
    table = replace(profile.decode_step, reach=np.array([2048.0, 2048.0, 256.0]))
    whole = replace(profile.limits, kv_capacity_tokens=1_000_000)
    written = write(replace(profile, decode_step=table, limits=whole), tmp_path)
    assert len(np.load(written.files[1])["z_itl"]) == 5
    assert any("or were not measured: not written" in note for note in written.notes)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("prefill", "prompts of 100 tokens only"),
        ("decode_step", "decode steps of one batch or one context"),
    ],
)
def test_too_little_for_its_planner_is_refused(tmp_path, table, said):
    profile = gridded()
    whole = getattr(profile, table)
    single = replace(whole, x=whole.x[:1], seconds=whole.seconds[:1])
    with pytest.raises(ProfileError, match=said):
        write(replace(profile, **{table: single}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_profile_without_points_in_the_cache_is_not_exported(tmp_path):
    profile = linear_profile()
    nothing = TimeTable(
        x_name="sequences",
        y_name="context tokens",
        x=np.array([64.0]),
        y=np.array([8192.0, 16384.0]),
        seconds=np.full((1, 2), 0.1),
    )
    with pytest.raises(ProfileError, match="nothing to export"):
        write(replace(profile, decode_step=nothing), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_that_fails_leaves_nothing_behind(tmp_path):
    (tmp_path / "selected_decode_interpolation").write_text("a file, no folder")
    with pytest.raises(ProfileError, match="cannot be written"):
        write(gridded(), tmp_path)
    assert list((tmp_path / "selected_prefill_interpolation").iterdir()) == []


def nan(array):
    return np.where(np.arange(len(array)) == 1, np.nan, array)


PREFILL, KV = dynamo_arrays()
BAD = [
    ({"prefill_ttft": PREFILL["prefill_ttft"][:2]}, {}, "prefill_ttft has 2 values"),
    ({"prefill_ttft": nan(PREFILL["prefill_ttft"])}, {}, "prefill_ttft[1]: nan is no measurement"),
    ({"prefill_isl": -PREFILL["prefill_isl"]}, {}, "prefill_isl[0]: -100 is no measurement"),
    ({"prefill_ttft": PREFILL["prefill_ttft"] / 1e3}, {}, "prefill_ttft[0]: 0.02 ms lies outside"),
    (
        {"prefill_thpt_per_gpu": PREFILL["prefill_thpt_per_gpu"] * 1e3},
        {},
        "GPUs a replica: is prefill_ttft in ms",
    ),
    ({}, {"x_kv_usage": KV["x_kv_usage"] * 100}, "is a share of the KV cache, 0 to 1"),
    ({}, {"max_kv_tokens": np.array([10])}, "is less than one sequence"),
    ({}, {"z_itl": KV["z_itl"] / 1e3}, "z_itl[0]: "),
    ({}, {"z_itl": KV["z_itl"].reshape(1, -1)}, "not one row of values"),
    ({}, {"z_itl": np.array(["a"] * len(KV["z_itl"]))}, "z_itl: not numbers"),
]


@pytest.mark.parametrize(("prefill", "decode", "said"), BAD)
def test_bad_arrays_are_named_with_file_and_place(tmp_path, prefill, decode, said):
    write_dynamo(tmp_path, prefill=prefill, decode=decode)
    with pytest.raises(ProfileError) as caught:
        read(tmp_path, tp=2)
    assert "raw_data.npz" in str(caught.value)
    assert said in str(caught.value)


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(ProfileError, match="is no folder"):
        read(tmp_path / "gone", tp=1)
    with pytest.raises(ProfileError, match="neither selected_prefill_interpolation"):
        read(tmp_path, tp=1)
    file = write_dynamo(tmp_path) / "selected_decode_interpolation" / "raw_data.npz"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ProfileError, match="not a whole NPZ file"):
        read(tmp_path, tp=1)
    file.write_text("")
    with pytest.raises(ProfileError, match="not a whole NPZ file"):
        read(tmp_path, tp=1)
    np.savez(file, prefill_ttft_ms=np.ones(3))
    with pytest.raises(ProfileError, match="no array x_kv_usage, it holds prefill_ttft_ms"):
        read(tmp_path, tp=1)
    np.savez(file, x_kv_usage=np.array([{}], dtype=object))
    with pytest.raises(ProfileError, match="not a whole NPZ file"):
        read(tmp_path, tp=1)
