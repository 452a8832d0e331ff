"""Whatever stands in a body: an answer or a problem, never a fault of the server."""

import copy
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.service.api import create_app
from profiler.files import profile_document
from tests.fakes.profiles import linear_profile
from tests.planner.service.clients import Client, service_of
from tests.planner.service.examples import NOON, fleet, history, spec_data
from tests.planner.service.imagined import make_deployment

PROFILE = profile_document(linear_profile()).model_dump(mode="json", exclude={"profile_id"})
REQUESTS = {
    "start_at": NOON.isoformat(),
    "arrival_offset_s": [0.0, 1.0, 2.0],
    "input_tokens": [5, 6, 7],
    "output_tokens": [1, 2, 3],
    "cached_tokens": [0, 0, 0],
    "duration_s": 5.0,
}
BODIES = {
    "/v1/plans": {"history": history(3), "fleet": fleet()},
    "/v1/recommendations": {
        "history": history(3),
        "fleet": fleet(),
        "spec": spec_data(profiles=[PROFILE]),
        "now": NOON.isoformat(),
    },
    "/v1/forecasts": {
        "history": history(3),
        "made_at": NOON.isoformat(),
        "window_s": 60.0,
        "horizon_windows": 2,
        "events": [
            {
                "name": "launch",
                "start_at": NOON.isoformat(),
                "end_at": (NOON + timedelta(minutes=1)).isoformat(),
                "rate_ratio": 2.0,
                "request_class": "default",
            }
        ],
        "paths": 2,
        "seed": 1,
    },
    "/v1/simulations": {"requests": REQUESTS, "fleet": fleet()},
    "/v1/deployments/shop/observations": {"history": history(3)},
}
JUNK = (
    *(None, True, -1, 0, 1, 1e308, -1e308, 1e-300, 0.5, 10**12, 10**15, 10**18, 10**30),
    *("", "x", "\x00", "é" * 100, "1e5", "tiny", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
    *([], {}, [[]]),
)


def places(value, path=()):
    """Every place in a body, outer ones first."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inside:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from places(item, (*path, key))


def with_junk(body, place, junk):
    changed = copy.deepcopy(body)
    owner = changed
    for key in place[:-1]:
        owner = owner[key]
    owner[place[-1]] = junk
    return changed


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    deployment = make_deployment(tmp_path_factory.mktemp("api"))
    yield Client(create_app(service_of(deployment, insecure_local=True)), None)
    deployment.store.close()


CASES = st.sampled_from(sorted(BODIES)).flatmap(
    lambda path: st.tuples(
        st.just(path), st.sampled_from(list(places(BODIES[path]))), st.sampled_from(JUNK)
    )
)


@given(case=CASES)
@settings(max_examples=150, deadline=None)
def test_junk_in_a_body_is_answered_or_refused_as_a_problem(client, case):
    path, place, junk = case
    answer = client.post(path, with_junk(BODIES[path], place, junk))
    assert answer.status_code in (200, 201, 422)
