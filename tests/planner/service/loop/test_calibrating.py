"""The loop compares what it predicted with what it saw, keeps both, and plans accordingly."""

from dataclasses import replace
from datetime import timedelta

import pytest

from planner.domain.calibration import Leg
from planner.domain.fleet import Role
from planner.service.live.status import beside_forecast
from planner.service.loop.calibrating import calibrate
from planner.service.loop.slow_tick import tick
from planner.service.store import open_store
from planner.service.telemetry.calibration_metrics import CalibrationCollector
from planner.service.telemetry.metrics_catalogue import KnownRegistry
from serving.telemetry.signals import Signal
from serving.telemetry.whole import Promised
from tests.planner.service.examples import NOON, history
from tests.planner.service.imagined import BUSY, make_deployment, observe
from tests.planner.service.signals import example_signals, readings

TICKS = 12


@pytest.fixture
def deployment(tmp_path):
    made = make_deployment(tmp_path)
    yield made
    made.store.close()


def lived_through(deployment, **slower):
    for i, reading in enumerate(readings(TICKS, **slower)):
        at = NOON + timedelta(minutes=i)
        calibrate(deployment.store, deployment.spec, "tiny", [reading], now=at)


def test_every_comparison_is_kept_with_both_sides(deployment):
    lived_through(deployment)
    newest, *_ = deployment.store.calibrations("shop").comparisons(limit=99)
    assert newest.requests == pytest.approx(240)
    assert newest.observed.ttft_s == pytest.approx(newest.predicted.ttft_s, rel=1e-6)
    assert newest.observed.itl_s == pytest.approx(newest.predicted.itl_s, rel=1e-6)
    assert newest.observed.output_tokens_per_s == pytest.approx(240)
    assert newest.predicted.output_tokens_per_s == pytest.approx(240)
    assert newest.implied[Leg.DECODE] == pytest.approx(1.0, rel=0.02)
    assert len(deployment.store.calibrations("shop").comparisons(limit=99)) == TICKS


def test_without_drift_plans_are_as_before(deployment):
    lived_through(deployment)
    assert deployment.corrections() == ()
    assert deployment.plannable(now=NOON) == deployment.spec


def test_drift_is_told_in_plan_status_metrics_and_audit_log(deployment):
    lived_through(deployment, prefill=1.2, decode=1.3)
    factors = {c.leg: c.factor for c in deployment.corrections()}
    assert factors == {
        Leg.PREFILL: pytest.approx(1.2, rel=0.03),
        Leg.DECODE: pytest.approx(1.3, rel=0.03),
    }
    observe(deployment, history(**BUSY))
    plan = tick(deployment, now=NOON).decision.plan
    assert len(plan.inputs.assumptions) == 2
    assert all("profile again" in text for text in plan.inputs.assumptions)

    promised = Promised(spec=deployment.spec, model="tiny")
    status = beside_forecast(example_signals(), promised, deployment.store)
    assert status.corrections == plan.inputs.assumptions

    audited = [a for a in deployment.store.audit(limit=99) if a.action == "profile.correct"]
    assert {a.detail for a in audited} == set(status.corrections)


def test_a_slower_truth_makes_the_loop_ask_for_more_replicas(tmp_path):
    wanted = []
    for name, slower in (("right", 1.0), ("slower", 1.4)):
        (tmp_path / name).mkdir()
        made = make_deployment(tmp_path / name)
        lived_through(made, prefill=slower, decode=slower)
        observe(made, history(**BUSY))
        first = tick(made, now=NOON).decision.plan.windows[0]
        wanted.append(first.replicas(Role.PREFILL) + first.replicas(Role.DECODE))
        made.store.close()
    assert wanted[1] > wanted[0]


def test_a_tick_takes_the_readings_and_their_correction_survives_a_restart(tmp_path):
    made = make_deployment(tmp_path)
    waiting = readings(TICKS, decode=1.3)
    deployment = replace(made, readings=lambda: (waiting.pop(0),))
    for i in range(TICKS):
        tick(deployment, now=NOON + timedelta(minutes=i))
    made.store.close()
    store = open_store(f"sqlite:///{tmp_path / 'poolwise.db'}")
    (known,) = replace(made, store=store).corrections()
    assert known.leg is Leg.DECODE
    assert known.factor == pytest.approx(1.3, rel=0.03)
    store.close()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"requests_per_s": Signal.lacking("no router")}, "no router"),
        ({"requests_per_s": Signal(value=0.1)}, "6 requests were answered, 30 are needed"),
        ({"roles": ()}, "no worker of role prefill answers"),
    ],
)
def test_what_cannot_be_compared_is_kept_with_the_reason_and_corrects_nothing(
    deployment, changed, why
):
    reading = replace(example_signals(decode=2.0), **changed)
    for _ in range(TICKS):
        calibrate(deployment.store, deployment.spec, "tiny", [reading], now=NOON)
    (newest,) = deployment.store.calibrations("shop").comparisons(limit=1)
    assert why in newest.reason
    assert deployment.corrections() == ()


def test_workers_that_came_in_between_make_a_tick_tell_nothing(deployment):
    two = [example_signals(), example_signals(replicas=2)]
    calibrate(deployment.store, deployment.spec, "tiny", two, now=NOON)
    (newest,) = deployment.store.calibrations("shop").comparisons(limit=1)
    assert newest.reason == "workers came or went meanwhile"


def test_a_spec_that_switches_it_off_plans_with_the_profile_and_still_tells(tmp_path):
    made = make_deployment(tmp_path, calibration={"enabled": False})
    lived_through(made, decode=1.3)
    assert made.plannable(now=NOON).profiles == made.spec.profiles
    assert [c.factor for c in made.corrections()] == [1.0]
    made.store.close()


def test_a_correction_that_was_kept_is_cut_to_bounds_that_have_become_narrower(tmp_path):
    made = make_deployment(tmp_path)
    lived_through(made, decode=1.4)
    spec = replace(made.spec, calibration=replace(made.spec.calibration, max_slower_ratio=0.1))
    (known,) = replace(made, spec=spec).corrections()
    assert known.factor == pytest.approx(1.1)
    made.store.close()


def test_the_metrics_show_factor_bound_and_both_sides(deployment):
    lived_through(deployment, decode=1.9)
    registry = KnownRegistry()
    registry.register(CalibrationCollector(deployment))
    read = registry.get_sample_value
    leg = {"deployment": "shop", "profile": deployment.spec.profiles[0].profile_id, "leg": "decode"}
    assert read("poolwise_calibration_factor", leg) == pytest.approx(1.5)
    assert read("poolwise_calibration_at_bound", leg) == 1
    assert read("poolwise_profile_again", leg) == 1
    for source in ("observed", "predicted"):
        side = {"deployment": "shop", "source": source}
        assert read("poolwise_compared_itl_mean_seconds", side) > 0
