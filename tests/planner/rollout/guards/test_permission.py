from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from planner.domain.guards import FreezeWindow
from planner.domain.rollout import Verdict
from planner.rollout import diff, frozen, guard
from tests.planner.rollout.cases import NOW, D, P, fleet, plan
from tests.planner.rollout.guards.situations import (
    CALM,
    guarded,
    rolled_out,
    steps_taken,
    verdict,
)

BERLIN = ZoneInfo("Europe/Berlin")
SMALL, GROW = fleet({P: 1, D: 1}), plan({P: 2, D: 2})


def weekly(days=(), begin="09:00", end="17:00", zone=BERLIN, **more) -> FreezeWindow:
    return FreezeWindow(
        days=days,
        from_time=time.fromisoformat(begin),
        to_time=time.fromisoformat(end),
        zone=zone,
        **more,
    )


NOW_FROZEN = FreezeWindow(start_at=NOW, end_at=NOW + timedelta(hours=1), reason="sale")
ALLOWED = FreezeWindow(deny=False, start_at=NOW, end_at=NOW + timedelta(hours=1))


def test_nothing_moves_in_a_freeze_window_and_the_reason_is_told() -> None:
    assert rolled_out(SMALL, GROW, guarded(freeze_windows=(NOW_FROZEN,))) == {P: 1, D: 1}
    assert "sale" in frozen((NOW_FROZEN,), NOW)[0]


def test_without_or_after_the_window_it_moves() -> None:
    assert rolled_out(SMALL, GROW, guarded()) == {P: 2, D: 2}
    over = replace(NOW_FROZEN, start_at=NOW - timedelta(hours=1), end_at=NOW)
    assert rolled_out(SMALL, GROW, guarded(freeze_windows=(over,))) == {P: 2, D: 2}


def test_outside_the_allow_windows_nothing_moves() -> None:
    later = replace(ALLOWED, start_at=NOW + timedelta(hours=1), end_at=NOW + timedelta(hours=2))
    assert frozen((later,), NOW)[0]
    assert not frozen((later, ALLOWED), NOW)[0]


def test_of_two_windows_the_stricter_one_says_whether_a_person_may() -> None:
    both = (replace(NOW_FROZEN, manual=True), replace(NOW_FROZEN, manual=False))
    for windows in (both, both[::-1]):
        _, said = steps_taken(SMALL, GROW, guarded(freeze_windows=windows))
        assert verdict("freeze_windows", said) is Verdict.REFUSE


def test_deny_beats_allow() -> None:
    assert frozen((ALLOWED, NOW_FROZEN), NOW)[0]


def test_a_persons_plan_may_be_applied_where_every_window_in_force_says_so() -> None:
    for manual, held in ((True, Verdict.DELAY), (False, Verdict.REFUSE)):
        settings = guarded(freeze_windows=(replace(NOW_FROZEN, manual=manual),))
        said = guard(diff(SMALL, GROW, settings), settings, CALM, plan=GROW, automatic=False)
        assert verdict("freeze_windows", said) is held


@pytest.mark.parametrize(
    ("instant", "inside"),
    [
        ("2026-03-06T08:00:00+00:00", True),  # Friday 09:00 in Berlin, winter time
        ("2026-03-06T07:59:59+00:00", False),
        ("2026-03-06T15:59:59+00:00", True),
        ("2026-03-06T16:00:00+00:00", False),
        ("2026-07-03T07:00:00+00:00", True),  # Friday 09:00 in Berlin, summer time
        ("2026-07-03T06:59:59+00:00", False),
        ("2026-03-05T09:00:00+00:00", False),  # Thursday
    ],
)
def test_a_weekly_window_is_read_in_its_own_time_zone(instant: str, inside: bool) -> None:
    assert weekly(days=(4,)).holds(datetime.fromisoformat(instant)) is inside


@pytest.mark.parametrize(
    ("day", "hour", "inside"), [(6, 22, True), (7, 5, True), (7, 6, False), (7, 22, False)]
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins(day, hour, inside) -> None:
    friday_night = weekly(days=(4,), begin="22:00", end="06:00", zone=UTC)
    assert friday_night.holds(datetime(2026, 3, day, hour, tzinfo=UTC)) is inside


def test_a_window_with_equal_times_is_a_whole_day() -> None:
    saturday = weekly(days=(5,), begin="00:00", end="00:00", zone=UTC)
    held = [
        saturday.holds(datetime(2026, 3, d, h, tzinfo=UTC)) for d, h in ((7, 0), (7, 23), (8, 0))
    ]
    assert held == [True, True, False]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"start_at": NOW},
        {"from_time": time(1), "to_time": time(2)},
        {"start_at": NOW, "end_at": NOW},
    ],
)
def test_a_window_that_says_no_time_is_refused(fields) -> None:
    with pytest.raises(ValueError, match="freeze window"):
        FreezeWindow(**fields)


def test_only_the_leader_moves_the_fleet() -> None:
    follower = replace(CALM, leader=False)
    assert rolled_out(SMALL, GROW, guarded(), follower) == {P: 1, D: 1}


def test_where_two_believe_to_lead_both_would_move_it() -> None:
    assert [rolled_out(SMALL, GROW, guarded(), CALM)[D] for _ in range(2)] == [2, 2]
