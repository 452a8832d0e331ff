"""One candidate at a time holds the lease, by whatever carrier, whatever the clocks say."""

import threading
from dataclasses import replace

import pytest

from planner.domain.errors import InputError, NotLeaderError
from planner.service.election.lease import Timing
from planner.service.store.leases import Fence
from tests.planner.service.election.conftest import TIMING
from tests.planner.service.plans import example_record


def test_the_first_takes_it_and_the_second_watches(place):
    ann, bob = place.candidate("ann"), place.candidate("bob")
    ann.step()
    bob.step()
    assert (ann.term(), bob.term()) == (1, None)
    assert bob.seen().holder == "ann"


def test_a_lease_that_is_renewed_is_never_taken(place):
    ann, bob = place.candidate("ann"), place.candidate("bob")
    for _ in range(30):
        ann.step()
        bob.step()
        place.wait(TIMING.retry_s)
    assert (ann.term(), bob.term()) == (1, None)


def test_a_leader_that_falls_silent_stops_before_another_may_begin(place):
    ann, bob = place.candidate("ann"), place.candidate("bob")
    ann.step()
    bob.step()
    led = []
    for _ in range(20):
        place.wait(1.0)
        bob.step()
        led.append((ann.term(), bob.term()))
    assert led == [(1, None)] * 9 + [(None, None)] * 5 + [(None, 2)] * 6


@pytest.mark.parametrize("ahead_s", [-86_400.0, 86_400.0])
def test_clocks_that_are_a_day_apart_change_nothing(place, ahead_s):
    ann, bob = place.candidate("ann"), place.candidate("bob", ahead_s=ahead_s)
    ann.step()
    bob.step()
    place.wait(TIMING.lease_duration_s - 1)
    bob.step()
    assert bob.term() is None
    place.wait(1.0)
    bob.step()
    assert bob.term() == 2


def test_a_candidate_that_has_just_come_watches_for_a_whole_lease(place):
    ann = place.candidate("ann")
    ann.step()
    place.wait(3600.0)
    bob = place.candidate("bob")
    bob.step()
    assert bob.term() is None


def test_the_longer_lease_counts_where_settings_differ(place):
    ann = place.candidate("ann", timing=Timing(lease_duration_s=60.0, renew_deadline_s=50.0))
    bob = place.candidate("bob")
    ann.step()
    bob.step()
    place.wait(49.0)
    bob.step()
    assert (ann.term(), bob.term()) == (1, None)
    place.wait(11.0)
    bob.step()
    assert (ann.term(), bob.term()) == (None, 2)


def test_a_leader_that_wakes_up_late_finds_itself_deposed(place):
    ann, bob = place.candidate("ann"), place.candidate("bob")
    ann.step()
    bob.step()
    place.wait(16.0)
    bob.step()
    assert ann.term() is None
    ann.step()
    assert (ann.term(), bob.term()) == (None, 2)
    assert ann.seen().holder == "bob"


def test_a_leader_that_was_late_leads_on_in_a_new_term_when_nobody_else_came(place):
    ann = place.candidate("ann")
    ann.step()
    place.wait(11.0)
    assert ann.term() is None
    ann.step()
    assert ann.term() == 2
    assert not ann.holds(1)


def test_what_is_released_is_taken_at_once(place):
    ann, bob = place.candidate("ann"), place.candidate("bob")
    ann.step()
    bob.step()
    ann.stop()
    assert ann.term() is None
    bob.step()
    assert bob.term() == 2


def test_a_renewal_whose_answer_was_lost_is_no_loss(place):
    ann = place.candidate("ann")
    ann.step()
    seen = place.carrier.read()
    assert place.carrier.replace(seen, replace(seen, renewed_at=seen.renewed_at)) is not None
    ann.step()
    assert ann.term() == 1


def test_of_many_who_take_it_at_once_one_wins(place):
    candidates = [place.candidate(f"c{index}") for index in range(6)]
    barrier = threading.Barrier(len(candidates))

    def run(one):
        barrier.wait()
        one.step()

    threads = [threading.Thread(target=run, args=(one,)) for one in candidates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([one for one in candidates if one.term() is not None]) == 1


def test_a_lease_of_which_the_store_knows_a_newer_term_is_of_no_use(place):
    """Somebody deletes the Lease, or a database comes back from a backup."""
    ann, bob = place.candidate("ann"), place.candidate("bob")
    ann.step()
    terms = place.store.lease("shop")
    assert terms.begin_term(9, "eve", at=ann.seen().renewed_at)
    assert not terms.begin_term(9, "bob", at=ann.seen().renewed_at)
    ann.stop()
    bob.step()
    assert bob.term() == 10


def test_writes_of_an_older_term_are_refused_and_nothing_is_stored(place):
    ann, bob = place.candidate("ann"), place.candidate("bob")
    ann.step()
    bob.step()
    anns = place.store.fenced(Fence(name="shop", term=ann.term()))
    anns.add_plan(example_record(), actor="ann")
    place.wait(16.0)
    bob.step()
    with pytest.raises(NotLeaderError, match="bob leads since term 2"):
        anns.add_plan(example_record("plan-2"), actor="ann")
    assert [r.plan.plan_id for r in place.store.plans("shop", limit=9)] == ["plan-1"]


def test_without_a_fence_the_older_term_writes_on(place):
    ann, bob = place.candidate("ann"), place.candidate("bob")
    ann.step()
    bob.step()
    place.wait(16.0)
    bob.step()
    place.store.add_plan(example_record("plan-2"), actor="ann")
    assert len(place.store.plans("shop", limit=9)) == 1


def test_changes_of_leader_are_in_the_audit_log(place):
    ann, bob = place.candidate("ann"), place.candidate("bob")
    ann.step()
    ann.stop()
    bob.step()
    lines = [(e.actor, e.action, e.detail) for e in place.store.audit(limit=9)]
    assert lines == [("bob", "leader.begin", "term 2"), ("ann", "leader.begin", "term 1")]


def test_the_thread_renews_by_itself(place):
    timing = Timing(lease_duration_s=6.0, renew_deadline_s=4.0, retry_s=0.2)
    gained = threading.Event()
    ann = place.candidate("ann", timing=timing)
    ann.start(gained.set)
    assert gained.wait(5.0)
    first = ann.seen().version
    changed = threading.Event()
    for _ in range(100):
        if ann.seen().version != first:
            changed.set()
            break
        changed.wait(0.1)
    ann.stop()
    assert changed.is_set()
    assert place.carrier.read().holder == ""


def test_a_carrier_that_cannot_be_asked_ends_a_term_by_the_leaders_own_clock(place):
    ann = place.candidate("ann")
    ann.step()
    place.wait(9.0)
    assert ann.term() == 1
    place.wait(1.0)
    assert ann.term() is None


@pytest.mark.parametrize(
    ("lease_duration_s", "renew_deadline_s", "retry_s", "named"),
    [
        (10.0, 10.0, 2.0, "POOLWISE_LEASE_DURATION_S"),
        (15.0, 10.0, 9.0, "POOLWISE_LEASE_RETRY_S"),
        (15.0, 10.0, 0.0, "POOLWISE_LEASE_RETRY_S"),
    ],
)
def test_times_that_let_two_act_at_once_are_refused(
    lease_duration_s, renew_deadline_s, retry_s, named
):
    with pytest.raises(InputError, match=named):
        Timing(
            lease_duration_s=lease_duration_s, renew_deadline_s=renew_deadline_s, retry_s=retry_s
        )
