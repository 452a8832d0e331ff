from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from forecaster.client_traces import synthesize_clients
from forecaster.clients import (
    Client,
    ClientLengths,
    ClientReport,
    ClientTable,
    LengthHistogram,
    LengthPart,
    choose_clients,
)
from forecaster.readers.client_tables import read_client_table
from planner.domain.errors import TraceError

START = datetime(2026, 1, 1, tzinfo=UTC)


def lengths(start_s: float, isl: int, osl: int) -> ClientLengths:
    prompt, answer = (
        LengthHistogram(tokens=np.array([tokens]), weight=np.ones(1)) for tokens in (isl, osl)
    )
    return ClientLengths(start_s=start_s, prompt=(LengthPart(tokens=prompt),), answer=answer)


def table(*clients: Client, missing: list[bool] | None = None) -> ClientTable:
    return ClientTable(
        path=Path("table"),
        window_s=600.0,
        lengths_window_s=1200.0,
        missing=np.array(missing or [False] * len(clients[0].rate_rps)),
        clients=clients,
        report=ClientReport(rows_read=1, rows_refused=0, reasons=()),
    )


def client(name: str, rates: list[float], *known: ClientLengths, cv: float = 1.0) -> Client:
    return Client(
        name=name,
        rate_rps=np.array(rates),
        arrival_cv=np.full(len(rates), cv),
        lengths=known,
    )


def draw(source: ClientTable, *, span_s=None, seed=0, **options):
    return synthesize_clients(
        source,
        source.clients,
        span_s=span_s or (0.0, source.duration_s),
        start_at=START,
        rng=np.random.default_rng(seed),
        **options,
    )


def test_requests_have_the_rate_and_lengths_of_their_window():
    known = [lengths(0, 100, 10), lengths(1200, 200, 20)]
    trace = draw(table(client("a", [1.0, 3.0, 0.0, 2.0], *known))).workload
    counted = np.histogram(trace.arrival_offset_s, np.arange(5) * 600)[0]
    np.testing.assert_allclose(counted, [600, 1800, 0, 1200], rtol=0.15)
    late = trace.arrival_offset_s >= 1200
    assert set(trace.input_tokens[~late].tolist()) == {100}
    assert set(trace.output_tokens[late].tolist()) == {20}


def test_missing_lengths_are_the_nearest_ones_then_everyones_and_that_is_said():
    some = client("a", [1.0] * 6, lengths(1200, 100, 10))
    none = client("b", [1.0] * 6)
    found = draw(table(some, none), by_client=True)
    assert set(found.workload.input_tokens.tolist()) == {100}
    assert set(found.workload.request_class.tolist()) == {"client-a", "client-b"}
    nearest, pooled = found.remarks
    assert "nearest published time" in nearest
    assert "lengths of all clients" in pooled


def test_the_same_seed_draws_the_same_trace():
    source = table(client("a", [1.0, 2.0], lengths(0, 9, 9), cv=3.0))
    one, two = draw(source).workload, draw(source).workload
    np.testing.assert_array_equal(one.arrival_offset_s, two.arrival_offset_s)
    assert len(draw(source, seed=1).workload) != len(one)


def test_missing_data_is_refused_and_the_longest_known_time_is_named():
    source = table(client("a", [1.0, 0.0, 2.0, 2.0], lengths(0, 9, 9)), missing=[0, 1, 0, 0])
    with pytest.raises(TraceError, match=r"1 window .* from 600 s on.*is 1200 s to 2400 s"):
        draw(source)
    assert draw(source, span_s=(1200.0, 2400.0)).workload.duration_s == 1200.0


@pytest.mark.parametrize(
    ("rates", "span_s", "reason"),
    [
        ([1.0], (0.0, 601.0), "does not lie in it"),
        ([1.0], (300.0, 300.0), "does not lie in it"),
        ([1e6], (0.0, 600.0), "fewer clients or a shorter time"),
        ([0.0, 1.0], (0.0, 600.0), "no request in that time"),
    ],
)
def test_impossible_requests_are_refused(rates, span_s, reason):
    with pytest.raises(TraceError, match=reason):
        draw(table(client("a", rates, lengths(0, 9, 9))), span_s=span_s)


@pytest.mark.parametrize("name", ["r1", "mmimage"])
def test_a_day_of_published_clients_is_drawn_true_to_its_tables(poolwise_data, name):
    source = read_client_table(poolwise_data / "traces" / f"servegen_{name}_clients_10min.parquet")
    span_s = (0.0, 86_400.0)
    rng = np.random.default_rng(3)
    chosen = choose_clients(source, 20, span_s=span_s, rng=rng)
    found = synthesize_clients(source, chosen, span_s=span_s, start_at=START, rng=rng)
    asked = np.sum([one.rate_rps for one in chosen], axis=0)
    assert found.workload.request_rate_rps == pytest.approx(asked.mean(), rel=0.03)
    hourly = np.histogram(found.workload.arrival_offset_s, np.arange(25) * 3600)[0] / 3600
    asked_hourly = asked.reshape(24, 6).mean(axis=1)
    assert np.corrcoef(hourly, asked_hourly)[0, 1] > 0.95
    assert len(found.clients) == 20
