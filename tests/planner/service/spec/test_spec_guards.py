"""The spec's guards: what is written is what counts, and what cannot be meant is refused."""

import pytest

from planner.domain.errors import SpecError
from planner.domain.guards import Fallback, GuardSettings, Pin, RoleMode
from planner.service.spec.file import read_spec
from planner.service.spec.guards import GuardsPart
from tests.planner.service.examples import write_spec


def test_nothing_written_gives_the_defaults() -> None:
    assert GuardsPart().settings == GuardSettings()


def test_what_is_written_is_what_counts(tmp_path) -> None:
    written = {
        "decode": {"mode": "advise", "min_replicas": 2},
        "scale_up": {"replicas": 4, "period_s": 30},
        "pins": [{"pool": "decode:cpu:tp1", "replicas": 3}],
        "fallback": "higher",
        "fallback_pools": [{"pool": "prefill:cpu:tp1", "replicas": 2}],
        "freeze_windows": [
            {"days": ["fri"], "from": "16:00", "to": "24:00", "time_zone": "Europe/Berlin"}
        ],
    }
    guards = read_spec(write_spec(tmp_path, guards=written)).guards
    assert (guards.decode.mode, guards.decode.min_replicas) == (RoleMode.ADVISE, 2)
    assert (guards.scale_up.replicas, guards.scale_up.period_s) == (4, 30.0)
    assert guards.pins == (Pin(pool="decode:cpu:tp1", replicas=3),)
    assert guards.fallback is Fallback.HIGHER
    assert (guards.freeze_windows[0].days, str(guards.freeze_windows[0].zone)) == (
        (4,),
        "Europe/Berlin",
    )


@pytest.mark.parametrize(
    ("guards", "said"),
    [
        ({"pins": [{"pool": "decode:gpu:tp1", "replicas": 1}]}, "decode:gpu:tp1"),
        ({"fallback": "static"}, "needs fallback_pools"),
        ({"decode": {"min_replicas": 3, "max_replicas": 2}}, "max_replicas is below"),
        ({"freeze_windows": [{"from": "09:00", "to": "17:00"}]}, "time_zone"),
        (
            {"freeze_windows": [{"from": "09:00", "to": "17:00", "time_zone": "Mars/Olympus"}]},
            "no time zone is called so",
        ),
        ({"freeze_windows": [{"from": "9am", "to": "17:00", "time_zone": "UTC"}]}, "from"),
        ({"freeze_windows": [{"start_at": "2026-01-01T00:00:00"}]}, "start_at"),
        ({"scale_up": {"period_s": 0}}, "period_s"),
        ({"pause": "everything"}, "pause"),
        ({"max_dip_ratio": 5}, "max_dip_ratio"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_named(tmp_path, guards, said: str) -> None:
    with pytest.raises(SpecError, match=said) as caught:
        read_spec(write_spec(tmp_path, guards=guards))
    assert "spec.yaml:" in str(caught.value)
