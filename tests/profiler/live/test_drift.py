"""What live engines do against what a profile says of such a load."""

from dataclasses import replace

import pytest

from profiler.live.drift import Verdict, check
from profiler.live.traffic import WatchPlan, watch
from serving.telemetry import parse_traffic
from tests.fakes.profiles import linear_profile
from tests.serving.metrics import Served, page

# decode step 10 ms + 0.2 ms a sequence; prefill 5 ms + 0.1 ms a token (see the fake)
PROFILE = linear_profile()
BATCH, OSL, ISL = 4, 100, 300
STEP_S = 0.010 + 2e-4 * BATCH
PREFILL_S = 0.005 + 1e-4 * ISL


def loaded(count=10, *, slower=1.0, seconds=10.0, batch=BATCH, computed=1.0):
    """Readings of a worker that decodes `batch` sequences all the time, a look every 10 s."""
    alone = STEP_S * slower
    # Prompts take their time from decoding: so many requests fit into the seconds.
    share = PREFILL_S * slower * computed
    requests = int(seconds / (share + alone * (OSL - 1) / batch))
    busy = requests * share / seconds
    itl_s = alone / (1 - busy)
    served = Served(isl=ISL, osl=OSL, itl_s=itl_s, running=batch, computed=computed)
    served = replace(served, prefill_s=PREFILL_S * slower + (STEP_S - 0.01) * slower)
    return [replace(served, requests=requests * (look + 1)) for look in range(count + 1)]


def watched(readings, seconds=10.0):
    pages = iter([page(r) if isinstance(r, Served) else r for r in readings])
    clock = [0.0]

    def sleep(length):
        clock[0] += length

    return watch(
        ["http://worker"],
        lambda url: parse_traffic(next(pages), source=url),
        WatchPlan(interval_s=seconds, for_s=seconds * (len(readings) - 1)),
        clock=lambda: clock[0],
        sleep=sleep,
    )


def drift_of(found, quantity):
    (drift,) = [d for d in found.drifts if d.quantity == quantity]
    return drift


def test_an_engine_that_does_what_the_profile_says_is_ok():
    found = check(PROFILE, watched(loaded()), tolerance=None)
    assert found.verdict is Verdict.OK
    assert drift_of(found, "itl_s").ratio == pytest.approx(1.0, abs=0.05)
    assert drift_of(found, "prefill_s").ratio == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("slower", [0.6, 1.4, 2.0])
def test_drift_is_told_by_how_much(slower):
    found = check(PROFILE, watched(loaded(slower=slower)), tolerance=None)
    assert found.verdict is Verdict.DRIFTED
    # Prompts that take longer leave less for decoding, which the profile's share does not know.
    assert drift_of(found, "itl_s").ratio == pytest.approx(slower, rel=0.12)
    assert drift_of(found, "prefill_s").ratio == pytest.approx(slower, rel=0.05)


def test_a_decode_worker_is_judged_by_its_gaps_only():
    found = check(PROFILE, watched(loaded(computed=0.0, slower=1.5)), tolerance=None)
    assert drift_of(found, "itl_s").ratio == pytest.approx(1.5, rel=0.02)
    assert "came from elsewhere" in drift_of(found, "prefill_s").reason


def test_what_the_profiles_own_error_explains_is_no_drift():
    wide = replace(PROFILE, provenance=replace(PROFILE.provenance, error_ratio=0.6))
    assert check(wide, watched(loaded(slower=1.4)), tolerance=None).verdict is Verdict.OK
    assert check(wide, watched(loaded(slower=1.4)), tolerance=0.2).verdict is Verdict.DRIFTED


def test_an_idle_engine_is_neither_ok_nor_drifted():
    idle = [replace(one, requests=7, running=0) for one in loaded()]
    found = check(PROFILE, watched(idle), tolerance=None)
    assert found.verdict is Verdict.TOO_LITTLE
    assert "no request was served while watching" in found.notes


def test_few_requests_are_too_few_and_it_says_how_many_are_needed():
    few = [replace(one, requests=min(one.requests, 1), osl=20) for one in loaded()]
    few[0] = replace(few[0], requests=0)
    found = check(PROFILE, watched(few), tolerance=None)
    assert found.verdict is Verdict.TOO_LITTLE
    assert "100 are needed" in drift_of(found, "itl_s").reason


def test_a_restart_is_left_out_and_told():
    before, after = loaded(5), loaded(5)
    again = [replace(one, started_at_s=2000.0) for one in after]
    found = check(PROFILE, watched([*before, *again]), tolerance=None)
    assert found.verdict is Verdict.OK
    assert any("restarted 1 times" in note for note in found.notes)
    assert found.load.seconds == pytest.approx(100.0)


def test_counters_that_go_back_are_a_restart_even_without_a_start_time():
    same = [*loaded(5), *loaded(5)]
    (one,) = watched(same)
    assert one.restarts == 1


def test_load_beyond_the_profile_is_not_compared():
    short = linear_profile(max_context_tokens=200)
    drift = drift_of(check(short, watched(loaded()), tolerance=None), "itl_s")
    assert drift.verdict is Verdict.TOO_LITTLE
    assert "outside what the profile measured" in drift.reason


def test_another_model_is_told():
    other = replace(PROFILE, model="chat")
    found = check(other, watched(loaded()), tolerance=None)
    assert "http://worker serves tiny, the profile is of chat" in found.notes


def test_the_interval_is_wider_for_uneven_traffic():
    steady = drift_of(check(PROFILE, watched(loaded()), tolerance=None), "itl_s")
    uneven = loaded()
    total, rows = 0, []
    for index, one in enumerate(uneven):
        total += one.requests // (index + 1) // (1 + index % 3)
        rows.append(replace(one, requests=total))
    found = drift_of(check(PROFILE, watched(rows), tolerance=None), "itl_s")
    assert found.high - found.low > steady.high - steady.low


def test_a_difference_that_may_be_chance_is_neither_ok_nor_drifted():
    uneven = enumerate(loaded(6, slower=1.25, computed=0.0))
    rows = [replace(one, itl_s=one.itl_s * (1 + 0.04 * (look % 2))) for look, one in uneven]
    drift = drift_of(check(PROFILE, watched(rows), tolerance=0.1), "itl_s")
    assert drift.low < 1.1 < drift.ratio
    assert drift.verdict is Verdict.TOO_LITTLE
    assert "watch longer" in drift.reason


def test_only_lengths_that_came_have_to_be_within_the_profile():
    short = linear_profile(max_prompt_tokens=400)
    assert drift_of(check(short, watched(loaded()), tolerance=None), "prefill_s").ratio is not None
    shorter = linear_profile(max_prompt_tokens=200)
    drift = drift_of(check(shorter, watched(loaded()), tolerance=None), "prefill_s")
    assert "longer than the profile measured" in drift.reason
