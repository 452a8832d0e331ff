"""What load tests show of prefill and decode, and what they do not."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from planner.domain.errors import ProfileError
from profiler.imports.runs import Run, imported_from
from tests.profiler.imports.examples import prompt_s, step_s


def run(concurrency=1, input_tokens=1000.0, output_tokens=101.0, **changes):
    """A run in which all of `concurrency` decode all the time."""
    tpot_s = step_s(concurrency)
    given = Run(
        where=f"c{concurrency}.json",
        model="tiny",
        engine="vllm",
        started_at=datetime(2026, 11, 1, tzinfo=UTC),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        completed=100,
        failed=0,
        requests_per_s=concurrency / ((output_tokens - 1) * tpot_s),
        max_concurrency=concurrency,
        ttft_s=prompt_s(input_tokens),
        tpot_s=tpot_s,
    )
    return replace(given, **changes)


def made(*runs):
    return imported_from(runs, source="test")


def noted(found, words):
    return [note for note in found.notes if words in note]


def test_ttft_without_load_is_prefill_over_prompt_lengths():
    found = made(run(input_tokens=500.0), run(input_tokens=2000.0), run(8))
    assert found.prefill.x.tolist() == [500.0, 2000.0]
    assert float(found.prefill.at(2000, 0)) == pytest.approx(prompt_s(2000))
    assert noted(found, "first_token_s is 0")


def test_time_per_token_is_a_step_of_as_many_sequences_as_decode_by_little_s_law():
    found = made(run(), run(8), run(32))
    assert found.decode_step.x.tolist() == pytest.approx([1, 8, 32])
    assert float(found.decode_step.at(32, 0)) == pytest.approx(step_s(32))
    assert found.decode_step.y.tolist() == [1050.5]  # prompt and half the answer


def test_half_of_the_requests_waiting_for_their_prompt_are_no_batch():
    waiting = run(32)
    waiting = replace(waiting, requests_per_s=waiting.requests_per_s / 2)
    assert made(run(), waiting).decode_step.x[-1] == pytest.approx(16)


def test_without_throughput_the_stated_concurrency_counts_and_is_said():
    found = made(run(), run(8, requests_per_s=None))
    assert found.decode_step.x.tolist() == pytest.approx([1, 8])
    assert noted(found, "1 runs without throughput count at stated concurrency")


def test_the_median_gap_is_the_step_where_prompts_lengthen_the_mean():
    found = made(run(), run(8, gap_s=0.011, mean_gap_s=step_s(8)))
    assert found.decode_step.seconds[-1, 0] == pytest.approx(0.011)
    assert noted(found, "the median gap in 1 of 2 runs")


def test_events_of_several_tokens_are_no_gaps():
    found = made(run(), run(8, gap_s=0.04, mean_gap_s=0.04))
    assert found.decode_step.seconds[-1, 0] == pytest.approx(step_s(8))


def test_one_high_load_run_has_no_unloaded_ttft():
    with pytest.raises(ProfileError, match=r"no run without load.*concurrency 1"):
        made(run(64))


def test_a_slow_trickle_counts_as_without_load():
    trickle = run(1, requests_per_s=0.01, max_concurrency=None)
    assert made(trickle, run(8)).prefill.seconds[0, 0] == pytest.approx(prompt_s(1000))


def test_only_single_requests_say_nothing_of_batches():
    with pytest.raises(ProfileError, match="no run has several sequences decoding"):
        made(run(), run(input_tokens=2000.0))


def test_one_prompt_length_is_said_to_be_one():
    assert noted(made(run(), run(8)), "one prompt length only")


def test_contexts_with_one_batch_are_refused_for_steps_and_named():
    found = made(run(), run(8), run(1, input_tokens=4000.0))
    assert found.decode_step.y.tolist() == [1050.5]
    assert noted(found, "refused for decode steps: 1.0 sequences of 4,050 tokens")
    assert noted(found, "one context only")


def test_steps_at_two_contexts_make_a_table_of_both():
    long = [run(n, input_tokens=4000.0) for n in (1, 8)]
    found = made(run(), run(8), *long)
    assert found.decode_step.y.tolist() == [1050.5, 4050.5]


def test_repeated_runs_are_one_point():
    found = made(run(), run(8), run(8, tpot_s=step_s(8) * 1.02))
    assert len(found.decode_step.x) == 2
    assert found.decode_step.seconds[-1, 0] == pytest.approx(step_s(8) * 1.01)


def test_runs_with_failures_are_refused_with_the_reason():
    found = made(run(), run(8), run(32, failed=50))
    assert found.decode_step.x[-1] == pytest.approx(8)
    assert noted(found, "refused: c32.json: 50 of 150 requests failed")


def test_nothing_left_says_why():
    with pytest.raises(ProfileError, match=r"no run is left.*\n.*no request completed"):
        made(run(problem="no request completed"))


def test_runs_of_several_models_are_not_mixed():
    with pytest.raises(ProfileError, match="several models"):
        made(run(), run(8, model="other"))


def test_more_sequences_never_take_less_and_the_lift_is_said():
    found = made(run(), run(8), run(16, tpot_s=0.011))
    assert found.decode_step.seconds[-1, 0] == pytest.approx(step_s(8))
    assert noted(found, "lifted")
