"""Every decision is kept with all that it was made from, and can be made once more."""

import json
from dataclasses import replace
from datetime import date, time, timedelta

import pytest

from planner.domain.errors import InputError, UnknownDecisionError
from planner.domain.guards import Pause
from planner.service.loop import directives
from planner.service.loop.directives import Word
from planner.service.loop.replaying import ANSWER, PARTS, VERSIONS, replay, versions
from planner.service.loop.slow_tick import Outcome, tick
from planner.service.loop.written_values import value_in, written
from planner.service.spec.file import read_spec
from planner.service.store import DecisionRecord
from planner.service.store import decisions as stored_decisions
from tests.planner.service.examples import NOON, write_spec
from tests.planner.service.imagined import busy_deployments
from tests.planner.service.plans import example_fleet, example_plan


@pytest.fixture
def make(tmp_path):
    with busy_deployments(tmp_path, loop={"mode": "auto"}) as made:
        yield made


def newest(deployment):
    decision_id = deployment.store.decisions("shop", limit=1)[0].decision_id
    return deployment.store.decision("shop", decision_id)[1]


FROZEN = {
    "freeze_windows": [
        {"days": ["fri"], "from": "16:00", "to": "08:00", "time_zone": "Europe/Berlin"},
        {"start_at": "2026-11-27T00:00:00+01:00", "end_at": "2026-12-01T00:00:00+01:00"},
    ],
    "pins": [{"pool": "decode:cpu:tp1", "replicas": 2}],
}


def test_a_spec_comes_back_as_it_was_written(tmp_path):
    spec = read_spec(write_spec(tmp_path, guards=FROZEN))
    again = value_in(written(spec))
    assert written(again) == written(spec)
    assert again.guards == spec.guards
    assert again.pools == spec.pools


def test_days_and_instants_come_back_as_they_were():
    """Prices of the catalogue are of a day: a spec with them has to be kept as well."""
    for value in (date(2026, 1, 2), NOON, time(9, 30)):
        assert value_in(written(value)) == value
        assert type(value_in(written(value))) is type(value)


def test_plans_and_fleets_come_back_equal():
    for value in (example_plan(), example_fleet(3, 2)):
        assert value_in(written(value)) == value


def test_only_values_of_the_core_are_written_or_made():
    with pytest.raises(TypeError, match="no value of the core"):
        written(object())
    for text in (
        '{"$": "os:system"}',
        '{"$": "planner.domain.guards:datetime"}',
        '{"$": "planner.domain.nothing:X"}',
        '{"$": "planner.domain.guards:Pin", "pool": "x"}',
    ):
        with pytest.raises(InputError, match="another version"):
            value_in(text)
    with pytest.raises(InputError, match="not readable"):
        value_in("{")


@pytest.mark.parametrize("guards", [{}, {"pause": "all"}, {"scale_up": {"replicas": 1}}, FROZEN])
def test_a_decision_is_the_same_when_it_is_made_once_more(make, guards):
    deployment = make(guards=guards)
    assert tick(deployment, now=NOON).decision is not None
    again = replay(newest(deployment))
    assert again.differences == ()
    assert again.versions == ()


def test_orders_of_people_are_part_of_what_is_replayed(make):
    deployment = make()
    directives.pause(deployment, Pause.OUT, Word(by="ann", at=NOON))
    tick(deployment, now=NOON)
    parts = newest(deployment)
    directives.resume(deployment, Pause.OUT, Word(by="ann", at=NOON))
    assert replay(parts).same  # the pause of that moment counts, not what is in force now
    conditions = value_in(parts["conditions"])
    without = {**parts, "conditions": written(replace(conditions, paused=Pause.NONE))}
    assert not replay(without).same


def test_what_differs_is_said_field_by_field(make):
    deployment = make()
    tick(deployment, now=NOON)
    parts = newest(deployment)
    answer = json.loads(parts[ANSWER])
    answer["plan"]["windows"][0]["pools"][0]["replicas"] += 1
    replicas = answer["plan"]["windows"][0]["pools"][0]["replicas"]
    told = replay({**parts, ANSWER: json.dumps(answer)})
    assert told.differences == (
        f"plan.windows[0].pools[0].replicas: {replicas} before, {replicas - 1} now",
    )


def test_another_version_is_said(make):
    deployment = make()
    tick(deployment, now=NOON)
    other = written(versions() | {"ortools": "1.0"})
    told = replay({**newest(deployment), VERSIONS: other})
    assert told.same
    assert [text.partition(", now ")[0] for text in told.versions] == ["ortools 1.0"]


def test_a_decision_that_failed_fails_the_same_way_again(make):
    pools = [
        {"model": "tiny", "role": role, "accelerator": "cpu", "max_replicas": 1}
        for role in ("prefill", "decode")
    ]
    deployment = make(pools=pools)
    assert tick(deployment, now=NOON).outcome is Outcome.INFEASIBLE
    assert replay(newest(deployment)).same


def test_without_its_parts_a_decision_cannot_be_replayed(make):
    deployment = make()
    tick(deployment, now=NOON)
    parts = newest(deployment)
    for name in (*PARTS, ANSWER):
        with pytest.raises(InputError, match=f"{name} was not kept"):
            replay({k: v for k, v in parts.items() if k != name})
    with pytest.raises(UnknownDecisionError, match="no decision 99"):
        deployment.store.decision("shop", 99)
    with pytest.raises(UnknownDecisionError):
        deployment.store.decision("other", 1)


def test_equal_parts_are_kept_once_and_those_of_old_decisions_go(make, monkeypatch):
    from sqlalchemy import create_engine, text

    monkeypatch.setattr(stored_decisions, "REPLAYABLE", 3)
    monkeypatch.setattr(stored_decisions, "SWEEP_EVERY", 1)
    deployment = make(loop={"mode": "advise"})
    for index in range(5):
        tick(deployment, now=NOON + timedelta(seconds=index))
    other = DecisionRecord(
        deployment="other", decided_at=NOON, plan_id=None, outcome="x", reason="x"
    )
    deployment.store.add_decision(other, {"spec": "kept"})
    engine = create_engine(deployment.store._where)
    with engine.begin() as connection:
        kept_elsewhere = "select count(*) from decision_inputs where decision = 6"
        assert connection.execute(text(kept_elsewhere)).scalar_one() == 1
    with engine.begin() as connection:
        connection.execute(text("pragma foreign_keys=on"))
        connection.execute(text("delete from decisions where seq = 6"))  # as retention does
    deployment.store.add_decision(replace(other, reason="y"))
    with engine.connect() as connection:
        kept = connection.execute(
            text("select part, count(*), count(distinct digest) from decision_inputs group by part")
        ).all()
        values = connection.execute(text("select count(*) from recorded_values")).scalar_one()
        distinct = "select count(distinct digest) from decision_inputs"
        assert values == connection.execute(text(distinct)).scalar_one()
    engine.dispose()
    counts = {part: (count, different) for part, count, different in kept}
    assert counts["spec"] == counts["fleet"] == counts[VERSIONS] == (3, 1)
    assert counts["forecast"] == counts["moment"] == (3, 3)
    assert len(deployment.store.decisions("shop", limit=9)) == 5
    assert deployment.store.decision("shop", 1)[1] == {}
