"""What is kept how long: nothing that is still of use goes, and nothing stays for ever."""

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import create_engine, text

from forecaster.shapes import shape_of_lengths
from planner.domain.errors import NotLeaderError
from planner.domain.rollout import ApprovalState
from planner.domain.workload import LatencySummary, ObservedWindow
from planner.rollout import approve, begin, finish, supersede
from planner.service.answers.planning import expected_demand
from planner.service.election.elector import NoElection
from planner.service.election.leadership import Leadership
from planner.service.loop.rolling_up import roll_up
from planner.service.loop.tidying import schedule_tidying, tidy, tidy_as_leader
from planner.service.spec.file import read_spec
from planner.service.store import BegunStep, DecisionRecord, Keeping, open_store
from planner.service.store.leases import Fence
from planner.service.store.orders import Action, Answer
from planner.service.store.retention import LAST_DECISIONS, LAST_ROLLOUTS
from tests.planner.service.examples import NOON, write_spec
from tests.planner.service.fleet.test_gate import RECORD
from tests.planner.service.imagined import make_deployment
from tests.planner.service.plans import example_record

DAY = timedelta(days=1)
KEEPING = Keeping()


@pytest.fixture
def store(database_url):
    opened = open_store(database_url)
    yield opened
    opened.close()


def tidied(store, *, now=NOON, keeping=KEEPING, newest=10):
    return list(store.upkeep("shop", keeping, newest=newest, now=now).run())


def minute(start_at, requests=60, **more):
    """A minute of load whose lengths depend on its place in the hour."""
    isl, osl = 100 + start_at.minute, 10 + start_at.minute
    lengths = np.full(max(requests, 1), isl), np.full(max(requests, 1), osl)
    return ObservedWindow(
        start_at=start_at,
        window_s=60.0,
        requests=requests,
        input_tokens=requests * isl,
        output_tokens=requests * osl,
        cached_tokens=requests * 10,
        shape=shape_of_lengths(*lengths, np.full(max(requests, 1), 10)) if requests else None,
        **more,
    )


def minutes(first, count, **more):
    return [minute(first + timedelta(minutes=i), **more) for i in range(count)]


def hand_in(store, windows, *, model="tiny"):
    return store.add_windows("shop", model, windows, received_at=NOON, actor="ann")


def kept(store):
    return [one.window for one in store.windows("shop", "tiny", limit=100_000)]


def totals(windows):
    names = ("requests", "input_tokens", "output_tokens", "cached_tokens")
    return {name: sum(getattr(w, name) for w in windows) for name in names} | {
        "seconds": sum(w.window_s for w in windows)
    }


LONG_AGO = NOON - 20 * DAY


# Windows to hours ----------------------------------------------------------------------------


def test_old_windows_become_hours_and_no_token_or_second_is_lost(store):
    seen = minutes(LONG_AGO, 180)
    hand_in(store, seen)
    recent = minutes(NOON - timedelta(minutes=20), 20)
    hand_in(store, recent)
    tidied(store)
    hours, rest = kept(store)[:3], kept(store)[3:]
    assert [w.window_s for w in hours] == [3600.0] * 3
    assert [w.start_at for w in hours] == [LONG_AGO + timedelta(hours=i) for i in range(3)]
    assert totals(hours) == totals(seen)
    assert totals(rest) == totals(recent)
    assert {w.window_s for w in rest} == {60.0}
    first = hours[0].shape
    assert first.isl_mean == pytest.approx(hours[0].input_tokens / hours[0].requests)
    assert first.osl_mean == pytest.approx(hours[0].output_tokens / hours[0].requests)
    assert tidied(store) == []  # once


def test_what_a_forecast_looks_at_is_never_summed_up(store):
    hand_in(store, minutes(LONG_AGO, 180))
    tidied(store, newest=180)
    assert len(kept(store)) == 180
    tidied(store, newest=100)  # the 100th newest lies in the second hour
    assert len(kept(store)) == 1 + 120


def test_seconds_that_were_not_observed_stay_unknown():
    seen = [*minutes(LONG_AGO, 20), *minutes(LONG_AGO + timedelta(minutes=30), 30)]
    hours = roll_up(seen)
    assert [(w.start_at, w.window_s) for w in hours] == [
        (LONG_AGO, 1200.0),
        (LONG_AGO + timedelta(minutes=30), 1800.0),
    ]
    assert totals(hours) == totals(seen)


def test_attainment_is_exact_and_percentiles_are_not_made_up():
    good, bad = (LatencySummary(ttft_p95_s=0.1, attainment_ratio=ratio) for ratio in (1.0, 0.5))
    (hour,) = roll_up(
        [
            minute(LONG_AGO, 300, latency=good),
            minute(LONG_AGO + timedelta(minutes=1), 100, latency=bad),
            minute(LONG_AGO + timedelta(minutes=2), 0),
        ]
    )
    assert hour.latency == LatencySummary(attainment_ratio=0.875)
    (unsure,) = roll_up([minute(LONG_AGO, latency=good), minute(LONG_AGO + timedelta(minutes=1))])
    assert unsure.latency is None


def test_an_hour_without_requests_stays_an_observed_zero():
    (hour,) = roll_up(minutes(LONG_AGO, 60, requests=0))
    assert (hour.requests, hour.window_s, hour.shape) == (0, 3600.0, None)


def test_a_shape_of_some_requests_is_not_passed_off_as_that_of_all():
    known = minute(LONG_AGO)
    (hour,) = roll_up([known, replace(minute(LONG_AGO + timedelta(minutes=1)), shape=None)])
    assert hour.shape is None


def test_windows_that_come_in_too_late_for_their_hour_are_left_out_and_that_is_said(store):
    hand_in(store, minutes(LONG_AGO, 60))
    hand_in(store, minutes(NOON - timedelta(minutes=20), 20))
    tidied(store)
    before = totals(kept(store))
    late = [*minutes(LONG_AGO, 60), minute(LONG_AGO - timedelta(minutes=1))]
    assert hand_in(store, late) == 1  # the one before the hour is new
    assert totals(kept(store))["requests"] == before["requests"] + 60
    assert "1 window, 60 left out" in store.audit(limit=1)[0].detail


def test_a_forecast_takes_hours_beside_minutes_and_hours_alone(store, tmp_path):
    spec = read_spec(write_spec(tmp_path))
    seen = minutes(LONG_AGO, 20 * 60)
    hand_in(store, seen)
    tidied(store, newest=300)
    mixed = kept(store)
    assert {w.window_s for w in mixed} == {60.0, 3600.0}
    made_at = LONG_AGO + timedelta(hours=20)
    expected = [
        expected_demand(spec, windows, model="tiny", made_at=made_at).windows[0].demands[0]
        for windows in (seen, mixed)
    ]
    told, summed = ([d.request_rate_rps.median, d.shape.isl_mean] for d in expected)
    assert summed == pytest.approx(told, rel=0.02)
    hours = [w for w in mixed if w.window_s == 3600.0]
    from_hours = expected_demand(spec, hours, model="tiny", made_at=made_at)
    assert from_hours.windows[0].demands[0].request_rate_rps.median == pytest.approx(1.0, rel=0.1)


def test_other_deployments_and_models_are_left_alone(store):
    seen = [*minutes(LONG_AGO, 60), *minutes(NOON - timedelta(minutes=10), 10)]
    hand_in(store, seen, model="big")
    store.add_windows("mall", "tiny", seen, received_at=NOON, actor="ann")
    hand_in(store, seen)
    tidied(store)
    assert len(store.windows("mall", "tiny", limit=100)) == 70
    assert [len(store.windows("shop", m, limit=100)) for m in ("big", "tiny")] == [11, 11]


def test_hours_go_at_last(store):
    hand_in(store, minutes(NOON - 401 * DAY, 600))
    tidied(store)
    assert len(kept(store)) == 0


# Requests through a gate ------------------------------------------------------------------------


def hours_of(store):
    return store.gate_hours("shop", start_at=NOON - 30 * DAY, limit=100)


def test_old_requests_become_hours_with_every_token_and_dollar(store):
    at = datetime(2026, 11, 1, 8, 10, tzinfo=UTC)
    records = [
        replace(RECORD, started_at=at, cached_tokens=4),
        replace(RECORD, started_at=at + timedelta(minutes=49), met=False),
        replace(RECORD, started_at=at + timedelta(minutes=20), met=None, cost_usd=None),
        replace(RECORD, started_at=at, client="mall", outcome="refused"),
        replace(RECORD, started_at=at + timedelta(minutes=50)),
    ]
    store.add_gate_requests("shop", records[:2], now=at, retention_s=60)
    store.add_gate_requests("shop", records[2:], now=at + DAY, retention_s=60)
    store.add_gate_requests("shop", [], now=at + DAY, retention_s=60)
    assert store.gate_requests_since("shop", start_at=at, limit=9) == ()
    told = {(h.hour_at.hour, h.client, h.outcome): h for h in hours_of(store)}
    assert set(told) == {(8, "shop", "complete"), (8, "mall", "refused"), (9, "shop", "complete")}
    eight = asdict(told[8, "shop", "complete"])
    assert eight["cost_usd"] == pytest.approx(2e-6)
    assert [eight[n] for n in ("requests", "input_tokens", "cached_tokens", "output_tokens")] == [
        3, 36, 4, 15,
    ]  # fmt: skip
    assert (eight["judged"], eight["met"]) == (2, 1)


def test_a_backlog_of_requests_is_summed_up_piece_by_piece(store):
    records = [replace(RECORD, started_at=NOON + timedelta(seconds=i)) for i in range(2_500)]
    store.add_gate_requests("shop", records, now=NOON, retention_s=60)
    later = NOON + DAY
    left = []
    for _ in range(3):
        store.add_gate_requests("shop", [], now=later, retention_s=60)
        left.append(len(store.gate_requests_since("shop", start_at=NOON, limit=9_999)))
    assert left == [1_500, 500, 0]
    assert sum(h.requests for h in store.gate_hours("shop", start_at=NOON, limit=9)) == 2_500


# Decisions, plans, orders -----------------------------------------------------------------------


def decide(store, count, *, at):
    for index in range(count):
        store.add_decision(
            DecisionRecord(
                deployment="shop",
                decided_at=at,
                plan_id=None,
                outcome="unchanged",
                reason=str(index),
            )
        )


def test_old_decisions_go_but_the_last_ones_stay(store):
    decide(store, 250, at=NOON - 91 * DAY)
    decide(store, LAST_DECISIONS - 30, at=NOON)
    tidied(store)
    left = store.decisions("shop", limit=9_999)
    assert len(left) == LAST_DECISIONS
    assert left[-1].reason == "220"  # of the old ones the newest


def moved(store, plan_id):
    for move in (approve, begin, finish):
        store.change_approval(plan_id, lambda a, m=move: m(a, by="ann", at=NOON), action="x")


def test_a_plan_that_never_moved_the_fleet_goes_and_one_that_waits_or_moved_stays(store):
    long_ago = NOON - 8 * DAY
    for name in ("plan-old", "plan-moved", "plan-waits"):
        store.add_plan(example_record(name, at=long_ago), actor="ann")
    store.add_plan(example_record("plan-new", at=NOON), actor="ann")
    for name in ("plan-old", "plan-new"):
        store.change_approval(name, lambda a: supersede(a, by="ann", at=NOON), action="x")
    moved(store, "plan-moved")
    tidied(store)
    left = [r.plan.plan_id for r in store.plans("shop", limit=9)]
    assert sorted(left) == ["plan-moved", "plan-new", "plan-waits"]
    assert store.approvals("plan-old") == ()


def test_rollouts_go_after_a_year_with_their_steps_and_orders_but_for_the_last_ones(store):
    count = LAST_ROLLOUTS + 25
    for index in range(count):
        at = NOON - 401 * DAY + timedelta(minutes=index)
        store.add_plan(example_record(f"plan-{index}", at=at), actor="ann")
        store.change_approval(f"plan-{index}", lambda a: approve(a, by="ann", at=NOON), action="x")
        run = store.change_approval(
            f"plan-{index}", lambda a: begin(a, by="ann", at=NOON), action="x"
        )
        store.begin_step(run, BegunStep(number=1, begun_at=NOON, what="step 1 of 1"))
        store.change_approval(f"plan-{index}", lambda a: finish(a, by="ann", at=NOON), action="x")
        order = store.orders("shop").add(f"plan-{index}", Action.APPLY, by="ann", at=NOON)
        store.orders("shop").answer(order, Answer(), at=NOON)
    tidied(store)
    left = store.plans("shop", limit=99, states=[ApprovalState.APPLIED])
    assert [r.plan.plan_id for r in left] == [f"plan-{i}" for i in range(count - 1, 24, -1)]
    assert store.steps("plan-0") == ()
    assert len(store.steps("plan-25")) == 1


def test_answered_orders_go_and_waiting_ones_stay(store, database_url):
    store.add_plan(example_record(), actor="ann")
    orders = store.orders("shop")
    for _ in range(2):
        order = orders.add("plan-1", Action.APPLY, by="ann", at=NOON - 8 * DAY)
    orders.answer(order, Answer(), at=NOON)
    tidied(store)
    engine = create_engine(database_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM orders")).scalar() == 1
    engine.dispose()
    assert len(orders.waiting()) == 1


def test_the_audit_log_is_never_cut(store):
    for _ in range(3):
        hand_in(store, minutes(NOON - 500 * DAY, 1))
    tidied(store)
    assert [e.action for e in store.audit(limit=9)] == ["observations.add"] * 3


# The job ---------------------------------------------------------------------------------------


def test_the_job_tidies_and_leaves_one_line_in_the_audit_log(tmp_path):
    deployment = make_deployment(tmp_path)
    decide(deployment.store, LAST_DECISIONS + 5, at=NOON - 91 * DAY)
    gone = tidy(deployment, KEEPING, now=NOON, pause_s=0)
    assert gone == {"decisions": 5}
    entry = deployment.store.audit(limit=1)[0]
    assert (entry.action, entry.detail) == ("store.tidy", "5 decisions")
    assert tidy(deployment, KEEPING, now=NOON, pause_s=0) == {}
    tidied = [e.action for e in deployment.store.audit(limit=99) if e.actor != "loop"]
    assert tidied == ["store.tidy"]


def test_a_server_that_is_told_to_end_does_not_wait_for_a_backlog(tmp_path):
    deployment = make_deployment(tmp_path)
    scheduler = BackgroundScheduler(timezone=UTC)
    alone = Leadership(NoElection(), deployment, lambda _s, _r: deployment.actuator)
    schedule_tidying(scheduler, alone, KEEPING)
    scheduler.start(paused=True)
    (job,) = scheduler.get_jobs()
    decide(deployment.store, LAST_DECISIONS + 450, at=NOON - 91 * DAY)
    scheduler.shutdown()
    job.func(*job.args, **job.kwargs)  # as one that was just running
    assert len(deployment.store.decisions("shop", limit=9_999)) == LAST_DECISIONS + 250


def test_who_leads_no_longer_deletes_nothing(store):
    decide(store, LAST_DECISIONS + 5, at=NOON - 91 * DAY)
    store.lease("shop").begin_term(2, "bob", at=NOON)
    old = store.fenced(Fence(name="shop", term=1))
    with pytest.raises(NotLeaderError):
        tidied(old)
    assert len(store.decisions("shop", limit=9_999)) == LAST_DECISIONS + 5


class Nobody:
    """An election that another process has won."""

    identity = "ann"

    def term(self):
        return None


def test_a_follower_does_not_tidy(tmp_path):
    deployment = make_deployment(tmp_path)
    decide(deployment.store, LAST_DECISIONS + 5, at=NOON - 91 * DAY)
    tidy_as_leader(Leadership(Nobody(), deployment, lambda _s, _r: deployment.actuator), KEEPING)
    assert len(deployment.store.decisions("shop", limit=9_999)) == LAST_DECISIONS + 5


def test_readers_and_writers_get_in_between(tmp_path):
    """While an iterator of the work is held still, nothing of the database is."""
    deployment = make_deployment(tmp_path)
    store = deployment.store
    hand_in(store, minutes(LONG_AGO, 180))
    work = store.upkeep("shop", KEEPING, newest=10, now=NOON).run()
    next(work)
    hand_in(store, minutes(NOON, 1))
    assert len(kept(store)) == 1 + 120 + 1
    assert len(list(work)) == 1  # the third hour holds windows that a forecast looks at
