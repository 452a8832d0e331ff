"""From samples to a profile."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from planner.domain.errors import MeasurementError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.model import Model
from planner.domain.profile import EngineLimits, LifecycleTimes
from profiler.files import profile_document, profile_of
from profiler.fitting.profile import Seen, Setting, marked_incomplete, profile_of_samples
from profiler.measure.probe import gaps_while_all_run
from profiler.roofline import Peak, Roof
from profiler.samples import Kind, Point, Sample, Samples
from serving.traffic.load import Timing

BANDWIDTH = 2e8
FIRST_S = 0.03
BASE_S = 0.01
AT = datetime(2026, 1, 1, tzinfo=UTC)
SETTING = Setting(
    shape=ReplicaShape(role=Role.PREFILL, model="tiny", accelerator="cpu-slot"),
    limits=EngineLimits(
        kv_capacity_tokens=10_000,
        kv_bytes_per_token=4096.0,
        max_num_seqs=16,
        max_num_batched_tokens=4096,
        max_model_len=4096,
    ),
    lifecycle=LifecycleTimes(start_cold_s=30, start_warm_s=30, flip_s=5, drain_s=5),
    machine="test",
    engine="test 1",
    measured_at=AT,
    source="test",
)


def prefill_s(new: float, cached: float) -> float:
    return 0.002 + 0.001 * new + 2e-7 * new * (cached + new / 2)


def step_s(batch: float, context: float) -> float:
    return 0.02 + 0.001 * batch + 1e-6 * batch * context


def prefill(new: int, cached: int, *, held_out: bool = False, factor: float = 1.0) -> Sample:
    kv_bytes = 4096.0 * (new + cached)
    transfer_s = BASE_S + kv_bytes / BANDWIDTH
    busy_s = factor * prefill_s(new, cached)
    return Sample(
        point=Point(Kind.PREFILL, new, cached),
        values={
            "busy_s": busy_s,
            "alone_ttft_s": FIRST_S + busy_s + transfer_s + step_s(1, 64),
            "transfer_s": transfer_s,
            "transfer_bytes": kv_bytes,
            "loaded_transfer_s": 2 * transfer_s,
        },
        measured_at=AT,
        took_s=1.0,
        held_out=held_out,
    )


def decode(batch: int, context: int, *, held_out: bool = False) -> Sample:
    return Sample(
        point=Point(Kind.DECODE, batch, context),
        values={"step_s": step_s(batch, context), "context_tokens": float(context)},
        measured_at=AT,
        took_s=1.0,
        held_out=held_out,
    )


PREFILL = [prefill(n, c) for n in (50, 200, 1000) for c in (0, 1000)]
PREFILL_ABOVE = [prefill(n, c) for n in (200, 500, 1000) for c in (0, 1000)]
DECODE = [decode(b, c) for b in (1, 4, 16) for c in (64, 1000)]


def samples(*more: Sample, of: Iterable[Sample] = (*PREFILL, *DECODE)) -> Samples:
    return Samples([*of, *more])


def test_profile_gives_back_what_was_measured() -> None:
    profile = profile_of_samples(samples(), SETTING)
    # Between its lines a table is straight.
    assert float(profile.prefill.at(200, 1000)) == pytest.approx(prefill_s(200, 1000), rel=0.01)
    assert float(profile.decode_step.at(4, 64)) == pytest.approx(step_s(4, 64), rel=0.01)
    assert profile.transfer.base_s == pytest.approx(BASE_S, rel=1e-3)
    assert profile.transfer.bandwidth_bytes_per_s == pytest.approx(BANDWIDTH, rel=1e-3)
    assert profile.first_token_s == pytest.approx(FIRST_S, rel=0.05)


def test_physical_form_is_found_and_told() -> None:
    details = profile_of_samples(samples(), SETTING).details
    assert details is not None
    coefficients = dict(details.prefill.coefficients)
    assert details.prefill.form == "physical"
    assert coefficients["per_new_token_s"] == pytest.approx(0.001, rel=0.02)
    assert coefficients["per_attended_pair_s"] == pytest.approx(2e-7, rel=0.02)
    assert details.loaded_transfer_ratio == pytest.approx(2.0)
    assert details.kv_bytes_per_token == pytest.approx(4096.0)


def test_held_out_points_give_the_error_and_are_not_fitted() -> None:
    wrong = [prefill(n, 0, held_out=True, factor=1.25) for n in (100, 300, 700)]
    right = profile_of_samples(samples(), SETTING)
    judged = profile_of_samples(samples(*wrong), SETTING)
    assert judged.details is not None
    assert judged.details.prefill.held_out_points == 3
    assert judged.details.prefill.median_error_ratio == pytest.approx(0.2, abs=0.01)
    assert judged.provenance.error_ratio == pytest.approx(0.2, abs=0.01)
    assert np.array_equal(right.prefill.seconds, judged.prefill.seconds)


def test_without_held_out_points_the_error_is_that_of_points_left_out() -> None:
    rough = [prefill(n, 0, factor=f) for n, f in ((60, 1.2), (120, 0.8), (400, 1.2), (800, 0.8))]
    fit = profile_of_samples(samples(of=(*PREFILL, *rough, *DECODE)), SETTING)
    assert fit.details is not None
    assert fit.details.prefill.held_out_points == 0
    assert fit.details.prefill.median_error_ratio is not None
    assert fit.details.prefill.median_error_ratio > 0.01


def test_more_work_is_never_fitted_as_faster() -> None:
    noisy = [replace(s, values={**s.values, "busy_s": 0.01}) for s in PREFILL if s.point.x == 1000]
    table = profile_of_samples(samples(of=(*PREFILL[:4], *noisy, *DECODE)), SETTING).prefill
    assert (np.diff(table.seconds, axis=0) >= 0).all()
    assert (np.diff(table.seconds, axis=1) >= 0).all()


def test_transfer_that_does_not_grow_is_all_base() -> None:
    flat = [replace(s, values={**s.values, "transfer_s": 0.02}) for s in PREFILL]
    transfer = profile_of_samples(samples(of=(*flat, *DECODE)), SETTING).transfer
    assert float(transfer.seconds(4096.0 * 50)) == pytest.approx(0.02, rel=0.1)


def test_aggregated_replica_has_no_transfer_and_no_second_step_before_its_first_token() -> None:
    alone = [
        replace(
            s,
            values={
                "busy_s": s.values["busy_s"],
                "alone_ttft_s": FIRST_S + s.values["busy_s"],
            },
        )
        for s in PREFILL
    ]
    profile = profile_of_samples(samples(of=(*alone, *DECODE)), SETTING)
    assert float(profile.transfer.seconds(4096.0 * 1000)) < 1e-6
    assert profile.first_token_s == pytest.approx(FIRST_S, rel=0.05)


def test_prompts_beside_answers_are_held_against_prompts_alone() -> None:
    mixed = Sample(
        point=Point(Kind.MIXED, 200, 4),
        values={"beside_s": 1.5 * prefill_s(200, 0), "stall_s": 0.4},
        measured_at=AT,
        took_s=1.0,
    )
    details = profile_of_samples(samples(mixed), SETTING).details
    assert details is not None
    assert details.mixed_ratio == pytest.approx(1.5, rel=0.01)
    assert details.mixed_stall_s == pytest.approx(0.4)


def test_too_few_points_are_told() -> None:
    with pytest.raises(MeasurementError, match=r"2 points were measured.*at least 3"):
        profile_of_samples(samples(of=(*PREFILL[:2], *DECODE)), SETTING)


def test_an_interrupted_run_does_not_speak_of_what_it_did_not_measure() -> None:
    few = [s for s in PREFILL if s.point.y == 0]
    setting = marked_incomplete(SETTING, "the test said so")
    profile = profile_of_samples(samples(of=(*few, *DECODE)), setting)
    assert bool(profile.prefill.covers(np.array(1000.0), np.array(0.0)))
    assert not bool(profile.prefill.covers(np.array(100.0), np.array(1000.0)))
    notes = " ".join(profile.provenance.notes)
    assert "prefill: measured at 0 cached tokens only: nothing is said of more" in notes
    assert "prefill: its error is not known, as 3 points do not tell it: 10% is assumed" in notes
    assert profile.provenance.error_ratio == pytest.approx(0.1)
    again = profile_of(profile_document(profile).model_dump(mode="json"), where="test")
    assert again.profile_id == profile.profile_id
    assert not bool(again.prefill.covers(np.array(100.0), np.array(1000.0)))


def test_a_corner_that_a_run_did_not_reach_is_said() -> None:
    without = [s for s in DECODE if s.point != Point(Kind.DECODE, 16, 1000)]
    profile = profile_of_samples(samples(of=(*PREFILL, *without)), SETTING)
    (note,) = [n for n in profile.provenance.notes if "beyond" in n]
    assert note.startswith("decode step: measured up to 1,000 context tokens, but at 16 sequences")
    assert profile.prefill.reach is None


def roof(bytes_per_s: float) -> Roof:
    """Of a model of 1 GB that no accelerator computes at more than `bytes_per_s` of reading."""
    model = Model(
        name="tiny",
        layers=1,
        kv_heads=1,
        head_size=64,
        parameters=500_000_000,
        active_parameters=500_000_000,
        max_context_tokens=4096,
    )
    peak = Peak(flop_per_s=1e18, bytes_per_s=bytes_per_s)
    return Roof(model=model, peak=peak, accelerators=1)


def test_no_cell_is_faster_than_the_accelerators_peak() -> None:
    # 1 GB read at 4.8e10 bytes/s takes 20.8 ms: about the fastest measured decode step (21 ms).
    slow = [replace(s, values={**s.values, "step_s": 0.9 * s.values["step_s"]}) for s in DECODE]
    free = profile_of_samples(samples(of=(*PREFILL, *DECODE)), SETTING)
    same = profile_of_samples(samples(), replace(SETTING, roof=roof(1e12)))
    assert np.array_equal(free.decode_step.seconds, same.decode_step.seconds)
    bound = roof(1e9 / 0.0195)
    raised = profile_of_samples(samples(of=(*PREFILL_ABOVE, *slow)), replace(SETTING, roof=bound))
    least = bound.decode_s(raised.decode_step.x[:, None], raised.decode_step.y[None, :])
    assert (raised.decode_step.seconds >= least).all()
    (note,) = [n for n in raised.provenance.notes if "decode step" in n]
    assert "were raised to what the accelerator's peak allows (roofline), by at most" in note


def test_a_peak_that_measurements_pass_bounds_nothing_and_is_said() -> None:
    free = profile_of_samples(samples(), SETTING)
    doubtful = profile_of_samples(samples(), replace(SETTING, roof=roof(1e9)))
    assert np.array_equal(free.decode_step.seconds, doubtful.decode_step.seconds)
    notes = " ".join(doubtful.provenance.notes)
    assert "faster than the accelerator's peak allows: a wrong accelerator name" in notes


def test_details_survive_the_file() -> None:
    setting = replace(
        marked_incomplete(SETTING, "the test said so"),
        seen=Seen(prefix_cache_hit_ratio=1.0, facts=(("engine version", "0"),)),
    )
    profile = profile_of_samples(samples(prefill(100, 0, held_out=True)), setting)
    document = profile_document(profile).model_dump(mode="json")
    again = profile_of(document, where="test")
    assert again.details == profile.details
    assert again.provenance == profile.provenance
    assert again.details is not None
    assert not again.details.complete


def test_equal_measurements_have_equal_ids() -> None:
    first, second = (profile_of_samples(samples(), SETTING) for _ in range(2))
    assert first.profile_id == second.profile_id


def test_only_gaps_while_all_answers_run_are_counted() -> None:
    early = Timing(
        sent_at_s=0, token_at_s=(1.0, 2.0, 3.0, 4.0), tokens=(1, 2, 3, 4), input_tokens=1, error=""
    )
    late = Timing(
        sent_at_s=0, token_at_s=(2.0, 3.0, 5.0), tokens=(1, 2, 4), input_tokens=1, error=""
    )
    assert gaps_while_all_run([early, late]).tolist() == [1.0, 1.0, 1.0]
