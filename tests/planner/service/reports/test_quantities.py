import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.service.reports.quantities import (
    MILLISECONDS,
    MISSING,
    SECONDS,
    counted,
    data,
    duration,
    long_fleet,
    rate,
    sentence,
    share,
    short_fleet,
    span,
    time_unit,
    usd_per_hour,
)
from tests.planner.service.reports.outcomes import fleet


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.0041, "4.1 ms"),
        (0.0384, "38 ms"),
        (1.274, "1.27 s"),
        (60.0, "60 s"),
        (25.58, "25.6 s"),
        (1234.4, "1,234 s"),
        (None, MISSING),
        (math.nan, MISSING),
        (math.inf, MISSING),
    ],
)
def test_a_time_names_its_unit(seconds: float | None, text: str) -> None:
    assert plain(duration(seconds)) == text


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 1e6))
def test_a_written_time_reads_back_within_its_digits(seconds: float) -> None:
    number, unit = plain(duration(seconds)).split(" ")
    read_s = float(number.replace(",", "")) / {"s": 1.0, "ms": 1000.0}[unit]
    assert read_s == pytest.approx(seconds, rel=0.051, abs=0.00006)


def test_plots_use_milliseconds_only_when_all_times_are_short() -> None:
    assert time_unit([0.02, 0.9]) is MILLISECONDS
    assert time_unit([0.02, 1.5]) is SECONDS


@pytest.mark.parametrize(("written", "text"), [(share(0.9521), "95.2%"), (share(None), MISSING)])
def test_a_share_is_written_in_percent(written: str, text: str) -> None:
    assert written == text


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (usd_per_hour(0.06), "0.060 USD/h"),
        (usd_per_hour(1234.5), "1,234.50 USD/h"),
        (usd_per_hour(None), MISSING),
        (rate(2.314, "requests"), "2.31 requests/s"),
        (rate(1234.4, "tokens"), "1,234 tokens/s"),
        (rate(None, "tokens"), MISSING),
        (data(12_600_000), "12.6 MB"),
        (data(512), "512 bytes"),
        (counted(0, "step"), "no step"),
        (counted(1, "step"), "1 step"),
        (counted(1204, "request"), "1,204 requests"),
        (sentence("it rose"), "It rose."),
        (sentence("decode:cpu:tp1 grows"), "decode:cpu:tp1 grows."),
        (sentence("note: it rose"), "Note: it rose."),
        (sentence("hole.json: it rose"), "hole.json: it rose."),
        (sentence("0.5 of them are idle"), "0.5 of them are idle."),
        (sentence(""), ""),
        (sentence("Did it?"), "Did it?"),
    ],
)
def test_quantities_are_written_for_people(written: str, text: str) -> None:
    assert plain(written) == text


def test_a_fleet_is_written_as_the_field_does() -> None:
    assert short_fleet(fleet(2, 1)) == "2P1D"
    assert short_fleet(fleet(0, 0, 1)) == "1A"
    assert short_fleet(fleet(0, 0)) == "empty"
    assert long_fleet(fleet(2, 1)) == "2 prefill + 1 decode"
    assert long_fleet(fleet(0, 0)) == "no worker"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.25, "250 ms"), (90, "90 s"), (120, "2 min"), (3480, "58 min"), (14_400, "4 h"),
     (5_430, "90.5 min"), (1_209_600, "14 days")],
)  # fmt: skip
def test_long_times_are_written_in_the_unit_that_people_say(seconds, said):
    assert plain(span(seconds)) == said
