from datetime import timedelta

from planner.rollout import Candidate, victims
from tests.planner.rollout.cases import NOW


def candidate(name: str, *, ready=True, running=0, kv=0.0, age_s=0.0) -> Candidate:
    return Candidate(
        name=name,
        ready=ready,
        started_at=NOW - timedelta(seconds=age_s),
        running_requests=running,
        kv_usage_ratio=kv,
    )


def test_who_serves_nobody_goes_first_and_who_is_not_seen_last() -> None:
    those = [
        candidate("unseen", running=None),
        candidate("busy", running=9),
        candidate("idle-with-cache", kv=0.8),
        candidate("idle", kv=0.1),
        candidate("starting", ready=False),
    ]
    assert victims(those, 5) == ("starting", "idle", "idle-with-cache", "busy", "unseen")


def test_of_equal_ones_the_youngest_goes() -> None:
    assert victims([candidate("old", age_s=99), candidate("new", age_s=1)], 1) == ("new",)


def test_no_more_are_chosen_than_asked_for() -> None:
    assert victims([candidate("a"), candidate("b")], 0) == ()
    assert victims([candidate("a")], 5) == ("a",)
