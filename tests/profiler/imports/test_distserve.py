"""DistServe's public fits: the tables hold them."""

import json

import numpy as np
import pytest

from planner.domain.errors import ProfileError
from profiler.imports.distserve import PROMPTS, read, read_kv_tokens, read_times
from tests.profiler.imports.examples import DISTSERVE, DISTSERVE_KV, write_json

MODEL = "facebook/opt-13b"
EVERYWHERE = np.meshgrid(
    np.array([1.0, 7, 50, 94, 95, 96, 100, 105, 110, 120, 135, 150, 170, 200, 400, 1024]),
    np.array([1.0, 10, 40, 100, 200, 300, 500, 700, 1000, 1500, 2000, 2048]),
    indexing="ij",
)
"""Batches and contexts, most of them between the lines of a table."""


def fitted_step_s(fit, batch, context):
    """Seconds of a decode step by a published fit."""
    small, large = (
        a + b * batch * context + c * batch
        for a, b, c in (fit["decoding_smallbs"], fit["decoding_largebs"])
    )
    return np.where(batch < fit["decoding_large_small_bs_threshold"], small, large) / 1e3


@pytest.fixture
def fits(tmp_path):
    (tmp_path / "max_num_tokens.csv").write_text(DISTSERVE_KV)
    return write_json(tmp_path / "profiler-a100-80g.distserve.json", DISTSERVE)


def test_the_tables_hold_the_fits_in_seconds(fits):
    found = read(fits, model=MODEL, tp=2)
    n = np.array([1.0, 256.0, 2048.0])
    assert found.prefill.at(n, 0) == pytest.approx((15 + 0.07 * n + 2.5e-6 * n**2) / 1e3)
    for batch, a, c in ((7, 13.0, 0.06), (94, 13.0, 0.06), (600, 10.0, 0.1)):
        step_ms = a + 0.0003 * batch * 1500 + c * batch
        assert float(found.decode_step.at(batch, 1500)) == pytest.approx(step_ms / 1e3)
    assert found.kv_capacity_tokens == 160_000
    assert found.engine == "DistServe, version not stated"


def test_between_its_points_the_quadratic_is_within_a_thousandth(fits):
    found = read(fits, model=MODEL, tp=2)
    n = np.arange(128.0, 2049.0, 7)
    truth = (15 + 0.07 * n + 2.5e-6 * n**2) / 1e3
    assert np.abs(found.prefill.at(n, 0) / truth - 1).max() < 1e-3


def test_without_the_kv_file_the_kv_cache_is_not_known(fits):
    (fits.parent / "max_num_tokens.csv").unlink()
    assert read(fits, model=MODEL, tp=2).kv_capacity_tokens is None


@pytest.mark.parametrize("engine", ["distserve", "vllm"])
def test_every_public_fit_is_found_again(poolwise_data, engine):
    folder = poolwise_data / "profiles/distserve"
    path = folder / f"profiler-a100-80g.{engine}.json"
    published = json.loads(path.read_text())
    for model, by_tp in published.items():
        for tp, fit in by_tp.items():
            found = read(path, model=model, tp=int(tp))
            a, b, c = fit["prefill"]
            prompts = (a + b * PROMPTS + c * PROMPTS**2) / 1e3
            assert found.prefill.seconds[:, 0] == pytest.approx(prompts, rel=1e-12)
            told = found.decode_step.at(*EVERYWHERE)
            step_s = fitted_step_s(fit, *EVERYWHERE)
            level_s = fitted_step_s(fit, 94.0, EVERYWHERE[1])
            truth = np.where(EVERYWHERE[0] >= 95, np.maximum(step_s, level_s), step_s)
            assert np.abs(told / truth - 1).max() < 0.02
            assert told[EVERYWHERE[0] < 95] == pytest.approx(step_s[EVERYWHERE[0] < 95], rel=1e-9)
            lifted = bool(np.any(truth > step_s * (1 + 1e-9)))
            assert any("decode step: lifted" in note for note in found.notes) == lifted
            kv = read_kv_tokens(folder / "max_num_tokens.csv", model)
            assert found.kv_capacity_tokens == kv[int(tp), 1]


def test_where_large_batches_begin_the_table_is_the_fit_or_level(poolwise_data):
    path = poolwise_data / "profiles/distserve/profiler-a100-80g.distserve.json"
    found = read(path, model="facebook/opt-66b", tp=2)
    fit = json.loads(path.read_text())["facebook/opt-66b"]["2"]
    for batch, context in ((96, 100), (110, 100), (200, 500)):
        fitted = float(fitted_step_s(fit, batch, context))
        level = float(fitted_step_s(fit, 94, context))
        told = float(found.decode_step.at(batch, context))
        assert told == pytest.approx(max(fitted, level), rel=0.005)
    (note,) = [n for n in found.notes if "lifted" in n]
    assert "the fit falls at batch 95" in note
    assert "at most +62.0%; where the KV cache holds them, " in note


def test_what_is_not_there_is_told_what_is(fits):
    with pytest.raises(ProfileError, match="no fit of opt-1t; there are facebook/opt-13b"):
        read(fits, model="opt-1t", tp=1)
    with pytest.raises(ProfileError, match="at tp 4; there is tp 2"):
        read(fits, model=MODEL, tp=4)


def changed(**fields):
    return {MODEL: {"2": DISTSERVE[MODEL]["2"] | fields}}


BAD = [
    (changed(prefill=[1.0, 2.0]), "prefill: has 2 coefficients, not 3"),
    (changed(prefill=[1.0, "x", 2.0]), "'x' is no number"),
    (changed(prefill=[1.0, float("nan"), 2.0]), "nan is no measurement"),
    (changed(prefill=None), "prefill: is missing"),
    (changed(decoding_large_small_bs_threshold=0), "threshold: 0 lies outside"),
    ({MODEL: {"two": {}}}, "two: is no tensor parallel degree"),
    ([], "a list, not an object"),
]


@pytest.mark.parametrize(("content", "said"), BAD)
def test_bad_fits_are_named_with_the_field(tmp_path, content, said):
    path = write_json(tmp_path / "fits.json", content)
    with pytest.raises(ProfileError) as caught:
        read_times(path, MODEL)
    assert "fits.json" in str(caught.value)
    assert said in str(caught.value)


def test_a_broken_kv_file_is_named_with_the_line(fits):
    (fits.parent / "max_num_tokens.csv").write_text(DISTSERVE_KV + "facebook/opt-13b,x,1,5\n")
    with pytest.raises(ProfileError, match=r"max_num_tokens\.csv:4: tp: 'x' is no number"):
        read(fits, model=MODEL, tp=2)
