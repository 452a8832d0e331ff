"""`--event` of forecasts."""

from datetime import UTC, datetime, timedelta

import pytest

from planner.domain.errors import InputError
from planner.service.cli.known_event_option import known_event_of

START = datetime(2026, 11, 1, 14, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "name", "length", "ratio", "request_class"),
    [
        ("launch 2026-11-01T14:00Z/2h x2", "launch", timedelta(hours=2), 2.0, None),
        ("a big sale 2026-11-01T14:00Z/1d12h x1.5", "a big sale", timedelta(hours=36), 1.5, None),
        ("stop 2026-11-01T14:00:00Z/90s x0", "stop", timedelta(seconds=90), 0.0, None),
        ("x2 2026-11-01T15:00+01:00/30m x3", "x2", timedelta(minutes=30), 3.0, None),
        (
            " launch 2026-11-01T14:00Z/2026-11-01T14:30Z x2 class=long chat ",
            "launch",
            timedelta(minutes=30),
            2.0,
            "long chat",
        ),
    ],
)
def test_an_event_is_one_readable_word(text, name, length, ratio, request_class):
    event = known_event_of(text)
    assert (event.name, event.rate_ratio, event.request_class) == (name, ratio, request_class)
    assert (event.start_at, event.end_at - event.start_at) == (START, length)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "write one as launch"),
        ("launch at noon", "write one as launch"),
        ("2026-11-01T14:00Z/2h x2", "write one as launch"),
        ("launch 2026-11-01T14:00/2h x2", "no time zone"),
        ("launch noon/2h x2", "'noon' is no instant"),
        ("launch 2026-11-01T14:00Z/soon x2", "'soon' is no instant"),
        ("launch 2026-11-01T14:00Z/0h x2", "end_at must be after start_at"),
        ("launch 2026-11-01T14:00Z/2026-11-01T13:00Z x2", "end_at must be after start_at"),
        ("launch 2026-11-01T14:00Z/2h xtwo", "is no ratio"),
        ("launch 2026-11-01T14:00Z/2h x-1", "between 0 and 1000"),
        ("launch 2026-11-01T14:00Z/2h xnan", "between 0 and 1000"),
        ("launch 2026-11-01T14:00Z/9999999999d x2", "after the year 2200"),
        ("launch 2026-11-01T14:00Z/900000d x2", "after the year 2200"),
    ],
)
def test_what_is_no_event_is_refused_with_what_one_looks_like(text, said):
    with pytest.raises(InputError, match="--event") as caught:
        known_event_of(text)
    assert said in str(caught.value)
