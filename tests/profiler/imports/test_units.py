"""Tables in another unit than seconds are refused, whatever program they come from."""

import numpy as np
import pytest

from planner.domain.errors import ProfileError
from planner.domain.profile import TimeTable
from profiler.imports.units import check_units

PROMPTS = ((128, 0.012), (512, 0.02), (4096, 0.3))
STEPS = ((1, 0.0065), (64, 0.0099))


def table(points: tuple[tuple[int, float], ...], x_name: str, factor: float) -> TimeTable:
    return TimeTable(
        x_name=x_name,
        y_name="tokens",
        x=np.array([x for x, _ in points], dtype=np.float64),
        y=np.array([0.0]),
        seconds=np.array([[factor * s] for _, s in points]),
    )


def checked(*, prompts: float = 1.0, steps: float = 1.0) -> None:
    check_units(
        table(PROMPTS, "new tokens", prompts), table(STEPS, "sequences", steps), source="a.csv"
    )


def test_seconds_of_a_fast_and_of_a_slow_engine_pass() -> None:
    checked()
    checked(prompts=60.0, steps=60.0)


def test_milliseconds_everywhere_are_refused() -> None:
    with pytest.raises(ProfileError, match=r"a.csv: the fastest decode step takes 6.5 s"):
        checked(prompts=1e3, steps=1e3)


def test_prompts_in_milliseconds_are_refused() -> None:
    with pytest.raises(ProfileError, match=r"prompt of 128 tokens takes 12 s.*milliseconds"):
        checked(prompts=1e3)


def test_prompts_a_thousand_times_too_fast_are_refused() -> None:
    with pytest.raises(ProfileError, match="same unit"):
        checked(prompts=1e-3)
