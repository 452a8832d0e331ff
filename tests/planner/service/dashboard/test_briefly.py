"""What many viewers ask for at the same time is found out once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from planner.service.dashboard.briefly import Briefly


class Clock:
    """Stands still until it is told to go on."""

    now_s = 0.0

    def __call__(self):
        return self.now_s


def test_an_answer_is_kept_for_a_moment_and_apart_for_every_deployment():
    clock, asked = Clock(), []
    kept = Briefly(clock=clock, kept_s=2.0)

    def find(name):
        return kept.get(name, lambda: asked.append(name) or len(asked))

    assert [find("a"), find("a"), find("b")] == [1, 1, 2]
    clock.now_s = 1.9
    assert find("a") == 1
    clock.now_s = 2.0
    assert (find("a"), asked) == (3, ["a", "b", "a"])


def test_who_asks_while_it_is_found_out_waits_for_the_same_answer():
    kept, asked, goes_on = Briefly(clock=Clock()), [], threading.Event()

    def slow():
        asked.append(1)
        goes_on.wait(timeout=30)
        return "found"

    with ThreadPoolExecutor(4) as viewers:
        answers = [viewers.submit(kept.get, "a", slow) for _ in range(4)]
        goes_on.set()
        assert [answer.result(timeout=30) for answer in answers] == ["found"] * 4
    assert asked == [1]


def test_what_fails_is_not_kept():
    kept = Briefly(clock=Clock())
    with pytest.raises(ZeroDivisionError):
        kept.get("a", lambda: 1 // 0)
    assert kept.get("a", lambda: 1) == 1
