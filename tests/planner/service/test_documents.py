"""Documents: nothing is lost on the way out and back, and the promised keys are there."""

import json
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.domain.errors import HistoryError
from planner.domain.forecast import (
    Demand,
    Dependence,
    Drift,
    Forecast,
    ForecastWindow,
    Quantiles,
)
from planner.domain.workload import Shape
from planner.service.documents import (
    fleet_document,
    fleet_from,
    forecast_document,
    forecast_of,
    history_end,
    plan_document,
    plan_of,
    read_fleet,
    read_forecast,
    read_history,
    read_plan,
    window_document,
    windows_of,
)
from planner.service.documents.answers import plan_answer
from planner.service.documents.forecast import ForecastDocument
from planner.service.spec.file import read_spec
from tests.planner.service.examples import (
    NOON,
    fleet,
    history,
    pool,
    window,
    write_json,
    write_spec,
)
from tests.planner.service.plans import example_fleet, example_plan


@pytest.fixture
def spec(tmp_path):
    return read_spec(write_spec(tmp_path))


RANKS = (np.array([[[0, 1, 2]], [[2, 0, 1]], [[1, 2, 0]]]) + 0.5) / 3


def example_forecast() -> Forecast:
    shape = Shape(
        input_tokens=np.array([100.0, 1000.0]),
        output_tokens=np.array([10.0, 50.5]),
        cached_tokens=np.array([0.0, 512.0]),
        weight=np.array([0.25, 0.75]),
    )
    rate = Quantiles(levels=(0.1, 0.5, 0.9), values=(1.0, 2.0, 4.0))
    demand = Demand(
        request_rate_rps=rate,
        input_tokens_per_s=rate,
        output_tokens_per_s=rate,
        shape=shape,
        reuse_ratio=Quantiles(levels=(0.1, 0.9), values=(0.2, 0.6)),
        arrival_cv2=1.5,
    )
    window_ = ForecastWindow(start_at=NOON, window_s=60.0, demands=(demand,))
    return Forecast(
        forecast_id="f-1",
        model="tiny",
        made_at=NOON,
        windows=(window_,),
        method="last value",
        events=("launch: x2",),
        drifts=(
            Drift(request_class="default", since=NOON, distance=0.4, usual=0.1, what="longer"),
        ),
        dependence=(Dependence(request_class="default", ranks=RANKS),),
    )


def test_a_plan_comes_back_as_it_was():
    plan = example_plan()
    text = plan_document(plan).model_dump_json()
    assert plan_of(type(plan_document(plan)).model_validate_json(text), where="x") == plan


def test_the_plan_document_has_the_promised_keys():
    data = json.loads(plan_document(example_plan()).model_dump_json())
    assert data.keys() >= {
        "status",
        "usd_per_hour",
        "windows",
        "binding",
        "rejected",
        "solver",
        "inputs",
    }
    first = data["windows"][0]
    assert first.keys() >= {"start_at", "window_s", "pools", "predicted", "bottleneck"}
    assert first["pools"][0].keys() >= {
        "role",
        "accelerator",
        "tp",
        "replicas",
        "utilization_ratio",
    }
    assert first["predicted"].keys() >= {
        "attainment_ratio",
        "ttft_p95_s",
        "tpot_p95_s",
        "itl_p95_s",
    }
    assert data["solver"].keys() >= {"name", "gap_ratio", "wall_s"}
    assert data["status"] in {"optimal", "feasible", "infeasible"}


def test_a_printed_plan_is_read_from_its_file(tmp_path):
    plan = example_plan()
    path = tmp_path / "plan.json"
    path.write_text(plan_answer(plan, None, ()).model_dump_json())
    assert read_plan(path) == plan


def test_a_forecast_comes_back_as_it_was(tmp_path):
    document = forecast_document(example_forecast())
    path = tmp_path / "f.json"
    path.write_text(document.model_dump_json())
    assert forecast_document(read_forecast(path)) == document
    assert forecast_document(forecast_of(document, where="x")) == document
    assert read_forecast(path).dependence[0].ranks.tolist() == RANKS.tolist()
    assert read_forecast(path).drifts == example_forecast().drifts


def test_a_forecast_of_an_earlier_version_is_read(tmp_path):
    document = forecast_document(example_forecast()).model_dump(mode="json")
    for later in ("events", "drifts", "output_lengths", "dependence"):
        del document[later]
    del document["windows"][0]["demands"][0]["reuse_ratio"]
    path = tmp_path / "f.json"
    path.write_text(json.dumps(document))
    old = read_forecast(path)
    assert (old.events, old.drifts, old.dependence) == ((), (), ())
    assert old.windows[0].demands[0].reuse_ratio is None


def test_a_forecast_says_how_long_answers_are_and_what_is_left_of_them():
    (lengths,) = forecast_document(example_forecast()).output_lengths
    assert lengths.values == sorted(lengths.values)
    assert 40 < lengths.mean_tokens < 41
    assert [row.so_far_tokens for row in lengths.remaining] == [0, 16]
    assert lengths.remaining[0].values == lengths.values
    assert lengths.remaining[1].longer_ratio < lengths.remaining[0].longer_ratio == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ranks": [[[0, 0, 0], [0, 0, 0]]]}, "every origin has 1 window of 3 ranks"),
        ({"ranks": [[[0, 0]]]}, "every origin has 1 window of 3 ranks"),
        ({"ranks": [[[0, 5, 0]]]}, "rank 5 among 1 origins"),
    ],
)
def test_a_dependence_that_cannot_be_is_refused(change, said):
    document = forecast_document(example_forecast()).model_dump()
    document["dependence"][0] |= change
    with pytest.raises(HistoryError, match=said):
        forecast_of(ForecastDocument.model_validate(document), where="x")


def test_a_reuse_above_one_is_refused():
    document = forecast_document(example_forecast()).model_dump()
    document["windows"][0]["demands"][0]["reuse_ratio"] = {"levels": [0.5], "values": [1.5]}
    with pytest.raises(HistoryError, match="reuse_ratio is a share"):
        forecast_of(ForecastDocument.model_validate(document), where="x")


def test_a_fleet_comes_back_as_it_was(spec):
    data = json.loads(fleet_document(example_fleet()).model_dump_json())
    assert fleet_from(data, spec=spec, read_at=NOON, where="x") == example_fleet()


def test_equal_fleets_have_equal_versions_in_any_order(spec):
    first = fleet_from(fleet(2, 3), spec=spec, read_at=NOON, where="x")
    turned = {"pools": fleet(2, 3)["pools"][::-1]}
    later = NOON + timedelta(hours=1)
    assert fleet_from(turned, spec=spec, read_at=later, where="x").version == first.version
    assert fleet_from(fleet(3, 2), spec=spec, read_at=NOON, where="x").version != first.version


def test_the_model_may_be_left_out_when_the_spec_has_one(spec):
    pools = [{key: value for key, value in pool("decode", 2).items() if key != "model"}]
    read = fleet_from({"pools": pools}, spec=spec, read_at=NOON, where="x")
    assert read.pools[0].shape.model == "tiny"


@pytest.mark.parametrize(
    ("pools", "said"),
    [
        ([pool("decode", 1, model="tny")], "did you mean `tiny`"),
        ([pool("decode", 1, accelerator="gpu")], "accelerator `gpu` is not in the spec"),
        ([pool("decode", -1)], "ready"),
        ([pool("decode", 1), pool("decode", 2)], "repeats"),
        ([pool("decoder", 1)], "role"),
        ([pool("decode", 1, replicas=3)], "unknown field `replicas`"),
        ("many", "pools"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused(spec, tmp_path, pools, said):
    path = write_json(tmp_path / "fleet.json", {"pools": pools})
    with pytest.raises(HistoryError, match=r"fleet\.json") as caught:
        read_fleet(path, spec=spec, read_at=NOON)
    assert said in str(caught.value)


def test_windows_come_back_as_they_were_with_latencies_and_shape():
    shape = {"input_tokens": [5.0], "output_tokens": [2.0], "cached_tokens": [0.0], "weight": [1.0]}
    shaped = window(-1, isl=5, osl=2, shape=shape)
    data = [window(-2, ttft_p95_s=0.25, attainment_ratio=0.9), shaped]
    windows = read_windows_of({"history": data})
    assert windows[0].latency.ttft_p95_s == 0.25
    assert windows[1].latency is None
    assert windows[1].shape.isl_mean == 5.0
    again = windows_of([window_document(w) for w in windows], where="x")
    assert [window_document(w) for w in again] == [window_document(w) for w in windows]


def read_windows_of(data):
    from planner.service.documents.history import HistoryDocument

    return windows_of(HistoryDocument.model_validate(data).history, where="x")


def test_a_history_is_an_object_or_a_bare_list_in_any_order(tmp_path):
    bare = read_history(write_json(tmp_path / "a.json", history()[::-1]))
    held = read_history(write_json(tmp_path / "b.json", {"history": history(), "fleet": fleet()}))
    first, second = (windows_of(d.history, where="x") for d in (bare, held))
    assert [w.start_at for w in first] == [w.start_at for w in second]
    assert history_end(first, where="x") == NOON
    assert held.fleet is not None


@pytest.mark.parametrize(
    ("windows", "said"),
    [
        ([window(-1), window(-1)], "overlap"),
        ([window(-1, requests=0, input_tokens=5)], "without requests"),
        ([window(-1, cached_tokens=10**9)], "cached_tokens"),
        ([window(-1, start_at="2026-01-01T00:00:00")], "start_at"),
        ([window(-1, requests=-1)], "requests"),
        ([window(-1, ttft_p95_ms=3)], "write `ttft_p95_s`"),
        ([{"start_at": NOON.isoformat()}], "window_s is missing"),
        ([window(-1, window_s=float("inf"))], "window_s"),
        ([window(-1, start_at="9999-12-31T23:59:59Z")], "year"),
        ([window(-1, window_s=1e30)], "window_s"),
        ([window(-1, requests=10**30)], "requests"),
        ([window(-1, requests=1, output_tokens=10**11)], "give totals"),
        ({}, "history"),
    ],
)
def test_windows_that_cannot_be_are_refused(tmp_path, windows, said):
    path = write_json(tmp_path / "h.json", {"history": windows})
    with pytest.raises(HistoryError, match=r"h\.json") as caught:
        windows_of(read_history(path).history, where=str(path))
    assert said in str(caught.value)


def test_no_history_is_not_zero_traffic():
    with pytest.raises(HistoryError, match="no data is not zero traffic"):
        history_end((), where="x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "3",
        '"x"',
        "null",
        '{"history": ' + "9" * 9000 + "}",
        "\ud800".encode("utf-8", "replace"),
    ],
)
def test_what_is_no_history_is_refused(tmp_path, text):
    path = tmp_path / "h.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(HistoryError, match=r"h\.json"):
        read_history(path)


counts = st.integers(0, 10**6)


@given(
    requests=st.integers(1, 10**6),
    tokens=st.integers(1, 10**6),
    osl=counts,
    minutes=st.integers(-(10**6), -1),
)
@settings(max_examples=50, deadline=None)
def test_every_possible_window_comes_back(requests, tokens, osl, minutes):
    data = window(minutes, requests=requests, isl=tokens, osl=osl)
    read = read_windows_of({"history": [data]})
    assert window_document(read[0]).model_dump(mode="json")["input_tokens"] == requests * tokens
    assert read_windows_of({"history": [window_document(read[0]).model_dump()]}) is not None
