import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forecaster.clients import choose_clients, observed_windows
from forecaster.readers.client_tables import read_client_table
from planner.domain.errors import TraceError

START = datetime(2026, 1, 1, tzinfo=UTC)
DATASET = {
    "0": {"input_tokens": "{100: 0.25, 200: 0.75}", "output_tokens": "{10: 1.0}"},
    "21600": {"input_tokens": "{}", "output_tokens": "{}"},
}


def write_chunk(folder: Path, client: str, rates: str, dataset: object = None) -> None:
    (folder / f"chunk-{client}-trace.csv").write_text(rates)
    text = json.dumps(DATASET if dataset is None else dataset)
    (folder / f"chunk-{client}-dataset.json").write_text(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_chunk(tmp_path, "2", "0,1.5,2.0,Gamma,0.2,3\n600,0,0,,0,0\n1200,0.5,1.0,Weibull,1,2\n")
    write_chunk(tmp_path, "10", "0,2.0,1.0,Gamma,1,1\n600,0,0,,0,0\n1200,0,0,,0,0\n")
    return tmp_path


def write_pair(folder: Path, rates: pd.DataFrame, lengths: pd.DataFrame) -> Path:
    rates.to_parquet(folder / "x_clients_10min.parquet")
    lengths.to_parquet(folder / "x_lengths_6h.parquet")
    return folder / "x_clients_10min.parquet"


RATES = pd.DataFrame(
    {"t": [0, 1200, 0], "rate": [1.5, 0.5, 2.0], "cv": [2.0, 1.0, 1.0], "client": [2, 2, 10]}
)
LENGTHS = pd.DataFrame(
    [
        (client, 0, kind, length, prob)
        for client in (2, 10)
        for kind, length, prob in [
            ("input_tokens", 100, 0.25),
            ("input_tokens", 200, 0.75),
            ("output_tokens", 10, 1.0),
        ]
    ],
    columns=["client", "window", "kind", "length", "prob"],
)


def same(one, other) -> bool:
    return all(
        a.name == b.name
        and np.array_equal(a.rate_rps, b.rate_rps)
        and np.array_equal(a.arrival_cv[a.rate_rps > 0], b.arrival_cv[b.rate_rps > 0])
        and [known.isl for known in a.lengths] == [known.isl for known in b.lengths]
        for a, b in zip(one.clients, other.clients, strict=True)
    )


def test_the_published_form_gives_rates_cvs_and_lengths_by_client(folder):
    table = read_client_table(folder)
    assert [client.name for client in table.clients] == ["2", "10"]
    assert table.clients[0].rate_rps.tolist() == [1.5, 0.0, 0.5]
    assert table.clients[0].arrival_cv.tolist() == [2.0, 1.0, 1.0]
    assert (table.clients[0].lengths[0].isl, table.clients[0].lengths[0].osl) == (175.0, 10.0)
    assert len(table.clients[0].lengths) == 1  # empty histograms are none
    assert table.report.rows_refused == 0


def test_windows_in_which_all_are_silent_are_missing_not_zero(folder):
    table = read_client_table(folder)
    assert table.missing.tolist() == [False, True, False]
    assert np.isnan(table.rate_rps[1])
    windows = observed_windows(table, start_at=START)
    assert [(w.start_at - START).total_seconds() for w in windows] == [0.0, 1200.0]
    assert [w.requests for w in windows] == [2100, 300]


def test_windows_of_each_client_keep_its_silence(folder):
    windows = observed_windows(read_client_table(folder), start_at=START, by_client=True)
    assert [(w.request_class, w.requests) for w in windows] == [
        ("2", 900),
        ("10", 1200),
        ("2", 300),
        ("10", 0),
    ]
    assert windows[0].input_tokens == 900 * 175
    assert windows[0].shape is not None
    assert windows[0].shape.isl_mean == pytest.approx(175, rel=1e-6)


def test_both_forms_give_the_same_table(folder, tmp_path):
    pair = write_pair(tmp_path, RATES, LENGTHS)
    assert same(read_client_table(folder), read_client_table(pair))


def test_images_add_to_the_prompt_as_often_as_they_occur(tmp_path):
    kinds = {
        "text_tokens": "{50: 1.0}",
        "image_tokens": "{1000: 1.0}",
        "image_count": "{0: 0.5, 2: 0.5}",
        "output_tokens": "{5: 1.0}",
        "reason_ratio": "{0.1: 1.0}",
    }
    write_chunk(tmp_path, "0", "0,1,1,Gamma,1,1\n", {"0": kinds})
    (lengths,) = read_client_table(tmp_path).clients[0].lengths
    assert lengths.isl == 1050.0
    prompts, answers = lengths.draw(4000, np.random.default_rng(0))
    assert set(np.unique(prompts)) == {50, 2050}
    assert prompts.mean() == pytest.approx(1050, rel=0.05)
    assert answers.tolist() == [5] * 4000


def test_clients_are_chosen_reproducibly_among_those_active(folder):
    table = read_client_table(folder)
    names = {
        choose_clients(table, 1, span_s=(0, 600), rng=np.random.default_rng(seed))[0].name
        for seed in range(20)
    }
    assert names == {"2", "10"}
    late = choose_clients(table, 1, span_s=(1200, 1800), rng=np.random.default_rng(0))
    assert late[0].name == "2"
    with pytest.raises(TraceError, match="1 clients have requests in that time, 2 were asked"):
        choose_clients(table, 2, span_s=(1200, 1800), rng=np.random.default_rng(0))
    with pytest.raises(TraceError, match="there is no client 7"):
        table.named(["7"])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("600,1.0,1.0\n", "3 columns instead of 6"),
        ("600,fast,1.0,Gamma,1,1\n", "start, rate and CV must be numbers"),
        ("600,-1,1.0,Gamma,1,1\n", "rate must lie between"),
        ("600,nan,1.0,Gamma,1,1\n", "rate must lie between"),
        ("600,1,-2,Gamma,1,1\n", "cv must lie between"),
        ("0,1,1,Gamma,1,1\n", "is not after 0 s"),
        ("-600,1,1,Gamma,1,1\n", "start must lie between"),
        ("600,1.0,1.0,Ga", "4 columns"),
    ],
)
def test_a_bad_window_is_refused_with_its_line(tmp_path, line, reason):
    write_chunk(tmp_path, "5", f"0,1,1,Gamma,1,1\n{line}")
    if line.endswith("Ga"):
        assert len(read_client_table(tmp_path).clients[0].rate_rps) == 2  # all it needs is there
        return
    with pytest.raises(TraceError, match=rf"chunk-5-trace\.csv:2: .*{reason}"):
        read_client_table(tmp_path)


@pytest.mark.parametrize(
    ("histogram", "reason"),
    [
        ("{100: 0.5}", "shares must sum to 1"),
        ("{-1: 1.0}", "lengths must lie between"),
        ("{99999999999: 1.0}", "lengths must lie between"),
        ("{1: 0.5, 1: 0.5}", "each once"),
        ("{1.5: 1.0}", "whole numbers"),
        ("{1: 2.0, 2: -1.0}", "shares must lie between"),
        ("{1: x}", "not a length and a share"),
        ("[1, 2]", "a histogram looks like"),
        (7, "a histogram looks like"),
    ],
)
def test_a_bad_histogram_is_refused_with_its_place(tmp_path, histogram, reason):
    bad = {"0": {"input_tokens": histogram, "output_tokens": "{10: 1.0}"}}
    write_chunk(tmp_path, "5", "0,1,1,Gamma,1,1\n", bad)
    with pytest.raises(TraceError, match=rf"chunk-5-dataset\.json, window '0', input.*{reason}"):
        read_client_table(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(TraceError, match="holds no chunk-N-trace"):
        read_client_table(tmp_path)
    with pytest.raises(TraceError, match="there is no such file"):
        read_client_table(tmp_path / "x_clients_10min.parquet")
    with pytest.raises(TraceError, match=r"client tables are a file \*_clients_10min"):
        read_client_table(tmp_path / "x.parquet")
    (tmp_path / "chunk-1-trace.csv").write_text("0,1,1,Gamma,1,1\n")
    with pytest.raises(TraceError, match=r"chunk-1-dataset\.json: missing"):
        read_client_table(tmp_path)
    (tmp_path / "chunk-1-dataset.json").write_text('{"0": {"input_tok')
    with pytest.raises(TraceError, match="not JSON"):
        read_client_table(tmp_path)


def test_parquet_files_are_checked(tmp_path):
    path = write_pair(tmp_path, RATES.drop(columns="cv"), LENGTHS)
    with pytest.raises(TraceError, match="lacks the columns cv"):
        read_client_table(path)
    write_pair(tmp_path, RATES.assign(rate=["a", "b", "c"]), LENGTHS)
    with pytest.raises(TraceError, match="the column rate must hold numbers"):
        read_client_table(path)
    write_pair(tmp_path, RATES.assign(client=[2.5, 2, 10]), LENGTHS)
    with pytest.raises(TraceError, match="row 1: client must be a whole number"):
        read_client_table(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TraceError, match="not a readable Parquet file"):
        read_client_table(path)


def test_a_table_of_silence_is_refused(tmp_path):
    write_chunk(tmp_path, "5", "0,0,0,,0,0\n")
    with pytest.raises(TraceError, match="no client has any request"):
        read_client_table(tmp_path)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rates=st.one_of(
        st.binary(max_size=80),
        st.lists(
            st.sampled_from(
                ["0,1,1,Gamma,1,1", "600,2,1,,0,0", "1,1,1,Gamma,1,1", "x", "9e99,1,1,G"]
            )
        ).map(lambda lines: "\n".join(lines).encode()),
    ),
    dataset=st.one_of(
        st.binary(max_size=80),
        st.recursive(
            st.one_of(st.none(), st.integers(), st.text(alphabet="{}:,.019e-", max_size=20)),
            lambda inner: st.dictionaries(
                st.sampled_from(["0", "600", "-1", "input_tokens", "output_tokens"]), inner
            ),
            max_leaves=6,
        ).map(lambda value: json.dumps(value).encode()),
    ),
)  # fmt: skip
def test_any_bytes_give_a_table_or_a_trace_error(tmp_path, rates, dataset):
    (tmp_path / "chunk-0-trace.csv").write_bytes(rates)
    (tmp_path / "chunk-0-dataset.json").write_bytes(dataset)
    try:
        table = read_client_table(tmp_path)
    except TraceError as error:
        assert str(tmp_path) in str(error)  # noqa: PT017
        return
    assert np.nansum(table.rate_rps) > 0


@pytest.mark.parametrize(
    ("name", "clients", "windows", "missing", "mean_rps"),
    [
        ("mlarge", 162, 2016, 0, 195.84),
        ("mmid", 108, 2016, 84, 1867.9),
        ("r1", 73, 144, 0, 16.01),
        ("mmimage", 35, 144, 0, 9.47),
    ],
)
def test_the_published_tables_have_their_published_totals(
    poolwise_data, name, clients, windows, missing, mean_rps
):
    traces = poolwise_data / "traces"
    table = read_client_table(traces / f"servegen_{name}_clients_10min.parquet")
    assert (len(table.clients), len(table.missing)) == (clients, windows)
    assert (int(table.missing.sum()), table.report.rows_refused) == (missing, 0)
    assert np.nanmean(table.rate_rps) == pytest.approx(mean_rps, rel=1e-3)
    published = pd.read_parquet(traces / f"servegen_{name}_agg_10min.parquet")["rate"].to_numpy()
    np.testing.assert_allclose(np.nan_to_num(table.rate_rps), published, rtol=1e-5)


@pytest.mark.parametrize("name", ["r1", "mmimage"])
def test_observed_windows_have_the_published_token_rates(poolwise_data, name):
    traces = poolwise_data / "traces"
    table = read_client_table(traces / f"servegen_{name}_clients_10min.parquet")
    windows = observed_windows(table, start_at=START, shapes=False)
    published = pd.read_parquet(traces / f"servegen_{name}_agg_10min.parquet")
    seen = np.array([w.input_tokens / w.window_s for w in windows])
    np.testing.assert_allclose(seen, published["tok_in_per_s"], rtol=0.01)
