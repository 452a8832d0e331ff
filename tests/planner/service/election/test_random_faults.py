"""Killed, cut off, stalled, clocks a day apart, in any order: one writer, and a new one in time."""

import random
from contextlib import suppress
from dataclasses import dataclass

import pytest

from planner.domain.errors import NotLeaderError, StoreError
from planner.service.election.elector import Elector
from planner.service.store import DecisionRecord
from planner.service.store.leases import Fence
from tests.planner.service.election.conftest import TIMING
from tests.planner.service.examples import NOON

STEPS = 150
FAULTS = ("kill", "cut", "stall")


class Wire:
    """A candidate's way to whatever keeps the lease; nothing gets through while it is cut."""

    def __init__(self, far):
        self._far = far
        self.is_cut = False

    def __getattr__(self, name):
        if self.is_cut:
            raise StoreError("the network is cut")
        return getattr(self._far, name)


@dataclass
class Candidate:
    """One process: its elector, its wires, what is wrong with it, and the last term it had."""

    elector: Elector
    wires: tuple[Wire, Wire]
    fault: str = ""
    until_s: float = 0.0
    last_term: int = 0

    def step(self):
        """Try to renew or take; what cannot be asked is tried again the next time."""
        if self.fault not in ("kill", "stall"):
            with suppress(StoreError):  # as its thread does
                self.elector.step()
        self.last_term = self.elector.term() or self.last_term

    def acts(self):
        """Whether it would move the fleet now. One that is stalled or dead does nothing."""
        return self.fault not in ("kill", "stall") and self.elector.term() is not None


def candidate(place, name, chance):
    ahead_s = chance.uniform(-86_400.0, 86_400.0)
    wires = (Wire(place.carrier), Wire(place.store.lease("shop")))
    elector = Elector(
        wires[0],
        wires[1],
        identity=name,
        timing=TIMING,
        clock=lambda: place.clock[0] + ahead_s,
    )
    return Candidate(elector, wires)


def strike(one, chance, now_s):
    one.fault = chance.choice(FAULTS)
    one.until_s = now_s + chance.uniform(1.0, 4 * TIMING.lease_duration_s)
    for wire in one.wires:
        wire.is_cut = one.fault == "cut"


def heal(one, place, number, chance):
    """Back: a process that was killed is another one, with another clock."""
    for wire in one.wires:
        wire.is_cut = False
    if one.fault == "kill":
        last_term = one.last_term
        one = candidate(place, f"p{number}", chance)
        one.last_term = last_term  # what it had begun may still be on its way to the database
    one.fault = ""
    return one


def writers(place, candidates):
    """Terms whose writes the database takes, whoever believes to lead."""
    taken = set()
    for one in candidates:
        store = place.store.fenced(Fence(name="shop", term=one.last_term))
        record = DecisionRecord(deployment="shop", decided_at=NOON, plan_id=None,
                                outcome="unchanged", reason="")  # fmt: skip
        try:
            store.add_decision(record)
        except NotLeaderError:
            continue
        taken.add(one.last_term)
    return taken


@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_one_writes_and_another_takes_over_in_time(place, seed):
    chance = random.Random(seed)
    candidates = [candidate(place, f"first-{n}", chance) for n in range(3)]
    without_s, longest_s, terms = 0.0, 0.0, set()
    for number in range(STEPS):
        now_s = place.clock[0]
        for index, one in enumerate(candidates):
            if one.fault and now_s >= one.until_s:
                candidates[index] = heal(one, place, number, chance)
        well = [one for one in candidates if not one.fault]
        if len(well) > 1 and chance.random() < 0.08:
            leading = [one for one in well if one.acts()]
            strike(chance.choice(leading or well), chance, now_s)
        for one in chance.sample(candidates, len(candidates)):
            one.step()
        acting = [one for one in candidates if one.acts()]
        assert len(acting) <= 1, f"at {now_s}: {[one.elector.identity for one in acting]}"
        terms |= {one.elector.term() for one in acting}
        if number % 5 == 0:
            assert len(writers(place, candidates)) <= 1
        stepped_s = chance.uniform(0.5, TIMING.retry_s)
        without_s = 0.0 if acting else without_s + stepped_s
        longest_s = max(longest_s, without_s)
        place.wait(stepped_s)
    assert longest_s <= 2 * TIMING.lease_duration_s
    assert len(terms) > 2  # faults did change the leader
