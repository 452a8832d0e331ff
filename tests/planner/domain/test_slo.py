"""An objective is met or missed request by request, and is never milliseconds."""

import numpy as np
import pytest

from planner.domain.slo import Slo

NAN = float("nan")


def test_request_must_meet_every_objective() -> None:
    slo = Slo(model="m", ttft_s=1.0, tpot_s=0.1, e2e_s=5.0)
    met = slo.met(
        ttft_s=np.array([0.5, 1.5, 0.5, 0.5]),
        tpot_s=np.array([0.05, 0.05, 0.2, 0.05]),
        e2e_s=np.array([1.0, 2.0, 2.0, 9.0]),
    )
    assert met.tolist() == [True, False, False, False]


def test_failed_request_misses_and_single_token_answer_has_no_tpot() -> None:
    met = Slo(model="m", ttft_s=1.0, tpot_s=0.1).met(
        ttft_s=np.array([NAN, 0.5]), tpot_s=np.array([NAN, NAN])
    )
    assert met.tolist() == [False, True]


@pytest.mark.parametrize("field", ["ttft_s", "tpot_s", "itl_p99_s"])
def test_milliseconds_by_mistake_are_refused_with_a_hint(field: str) -> None:
    values = {"ttft_s": 1.0, "tpot_s": 0.1, field: 400.0}
    with pytest.raises(ValueError, match=r"not milliseconds; did you mean 0\.4\?"):
        Slo(model="m", **values)


@pytest.mark.parametrize("field", ["tpot_s", "itl_p99_s"])
def test_usual_milliseconds_per_token_are_refused_too(field: str) -> None:
    with pytest.raises(ValueError, match=r"not milliseconds; did you mean 0\.04\?"):
        Slo(model="m", **({"ttft_s": 1.0, "tpot_s": 0.1} | {field: 40.0}))


@pytest.mark.parametrize("ratio", [0.0, 1.0, 95.0, -1.0, NAN])
def test_attainment_is_a_share(ratio: float) -> None:
    with pytest.raises(ValueError, match="attainment_ratio must lie between 0 and 1"):
        Slo(model="m", ttft_s=1.0, tpot_s=0.1, attainment_ratio=ratio)
