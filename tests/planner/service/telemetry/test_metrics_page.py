"""`/metrics`: everything that must be observable is there, named, documented and bounded.

`python -m tests.planner.service.telemetry.test_metrics_page` writes `docs/metrics.md` anew.
"""

import math
import shutil
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from actuators.metrics import DesiredReplicas
from planner.domain.calibration import Leg
from planner.service.election.elector import NoElection
from planner.service.live.watching import LiveSignals
from planner.service.loop.calibrating import calibrate
from planner.service.loop.scheduler import tick_once
from planner.service.telemetry.metrics import Metrics
from planner.service.telemetry.metrics_catalogue import metrics_table
from planner.service.telemetry.notifying import Notifier
from serving.telemetry.signals import Signal
from serving.telemetry.whole import Promised
from tests.planner.service.examples import NOON, history
from tests.planner.service.imagined import BUSY, make_deployment, observe
from tests.planner.service.signals import example_signals, readings

PAGE = Path(__file__).resolve().parents[4] / "docs" / "metrics.md"
BEGIN, END = "<!-- metrics -->", "<!-- /metrics -->"


def live_of(deployment, *, now=NOON) -> LiveSignals:
    """What is seen of a deployment where nobody reads yet."""
    return LiveSignals(
        source=None,
        interval_s=15.0,
        promised=Promised(spec=deployment.spec, model=deployment.model),
        store=deployment.store,
        clock=lambda: now,
    )


def everything(folder: Path, *, live: LiveSignals | None = None, deployment=None) -> Metrics:
    """Metrics with all that `poolwise serve` registers."""
    deployment = deployment or make_deployment(folder)
    desired = DesiredReplicas(deployment="shop", valid_for_s=60.0)
    metrics = Metrics()
    metrics.export(desired)
    metrics.watch(deployment.spec.name, NoElection())
    metrics.show(deployment, live or live_of(deployment))
    Notifier((), metrics.registry)
    return metrics


@pytest.fixture
def seen(tmp_path):
    """A deployment that was looked at twice, planned once and compared once."""
    deployment = make_deployment(tmp_path)
    live = live_of(deployment)
    metrics = everything(tmp_path, live=live, deployment=deployment)
    observe(deployment, history(**BUSY))
    tick_once(deployment, metrics)
    calibrate(deployment.store, deployment.spec, "tiny", readings(1), now=NOON)
    for back_s in (15, 0):
        live.put(example_signals(at=NOON - timedelta(seconds=back_s), interval_s=15.0))
    yield metrics, live
    deployment.store.close()


REQUIRED = (
    "ttft",
    "itl",
    "e2e",
    "input_tokens",
    "output_tokens",
    "accelerator_utilization",
    "accelerator_memory_used",
    "kv_usage",
    "queued_requests",
    "prefix_hit",
    "kv_transfer_seconds",
    "usd_per_million",
    "goodput",
    "slo_attainment",
    "slo_error_budget_used",
    "expected_ttft",
    "expected_itl",
    "forecast_now",
    "bottleneck",
    "compared_ttft",
    "compared_itl",
    "compared_output_tokens",
    "calibration_factor",
    "leader",
    "last_good_tick",
)


def test_every_metric_of_the_design_s_list_is_registered(tmp_path):
    names = " ".join(one.name for one in everything(tmp_path).registry.described())
    assert [name for name in REQUIRED if f"poolwise_{name}" not in names] == []


def test_the_page_in_the_documentation_is_what_is_registered(tmp_path):
    text = PAGE.read_text()
    documented = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()
    assert documented == metrics_table(everything(tmp_path).registry)


def test_units_are_base_units_and_names_are_lower_case(tmp_path):
    for one in everything(tmp_path).registry.described():
        assert one.name.startswith("poolwise_")
        assert not one.name.endswith(("_ms", "_milliseconds", "_percent", "_minutes")), one.name
        assert one.name == one.name.lower()
        assert one.text
        assert "deployment" in one.labels or one.name.startswith("poolwise_http_")


def test_values_are_those_that_were_seen(seen):
    metrics, _ = seen
    read = metrics.registry.get_sample_value
    shop = {"deployment": "shop"}
    signals = example_signals(interval_s=15.0)
    assert read("poolwise_ttft_seconds", {**shop, "level": "0.95"}) == pytest.approx(
        signals.ttft.p95_s.value
    )
    assert read("poolwise_output_tokens_per_second", shop) == 240.0
    assert read("poolwise_queued_requests", {**shop, "role": "prefill"}) == 2.0
    assert read("poolwise_bottleneck", {**shop, "bottleneck": "prefill"}) == 1.0
    assert read("poolwise_bottleneck", {**shop, "bottleneck": "decode"}) == 0.0
    judged = {**shop, "class": "default"}
    assert read("poolwise_slo_requests_total", judged) == pytest.approx(4.0 * 15)
    assert read("poolwise_slo_missed_requests_total", judged) == pytest.approx(0.4 * 15)
    assert read("poolwise_store_up", shop) == 1.0
    assert read("poolwise_observation_timestamp_seconds", shop) == NOON.timestamp()


def test_what_is_not_known_is_no_zero_but_absent(seen):
    metrics, live = seen
    lacking = Signal.lacking("this machine has no NVIDIA driver")
    live.put(replace(example_signals(), input_tokens_per_s=lacking, bottleneck=None))
    text = metrics.text().decode()
    assert "poolwise_accelerator_utilization_ratio" not in text
    assert "poolwise_input_tokens_per_second" not in text
    assert "poolwise_bottleneck{" not in text
    assert "poolwise_output_tokens_per_second{" in text
    assert "nan" not in {line.rpartition(" ")[2].lower() for line in text.splitlines()}


def test_signals_that_are_not_of_now_are_gone_from_the_page(seen):
    metrics, live = seen
    assert "poolwise_ttft_seconds{" in metrics.text().decode()
    live.clock = lambda: NOON + timedelta(minutes=10)
    assert "poolwise_ttft_seconds{" not in metrics.text().decode()
    assert "poolwise_slo_requests_total{" in metrics.text().decode(), "counters stay"


def test_a_gap_in_which_nobody_looked_is_not_counted(seen):
    metrics, live = seen
    labels = {"deployment": "shop", "class": "default"}
    before = metrics.registry.get_sample_value("poolwise_slo_requests_total", labels)
    live.put(example_signals(at=NOON + timedelta(hours=3)))
    after = metrics.registry.get_sample_value("poolwise_slo_requests_total", labels)
    assert after == before


def test_the_number_of_series_does_not_grow_with_time_or_workers(seen):
    metrics, live = seen

    def series() -> int:
        return sum(not line.startswith("#") for line in metrics.text().decode().splitlines())

    once = series()
    for i in range(50):
        signals = example_signals(at=NOON + timedelta(seconds=15 * i))
        more = tuple(
            replace(signals.targets[0], name=f"w{i}-{n}", url=f"http://w{i}-{n}") for n in range(20)
        )
        live.put(replace(signals, targets=more))
    live.clock = lambda: NOON + timedelta(seconds=15 * 49)
    assert series() == once


def test_a_store_that_is_broken_is_told_and_the_page_still_comes(seen, tmp_path):
    metrics, _ = seen
    with closing(sqlite3.connect(tmp_path / "poolwise.db")) as database:
        database.executescript("DROP TABLE observations; DROP TABLE calibrations;")
    text = metrics.text().decode()
    assert 'poolwise_store_up{deployment="shop"} 0.0' in text
    assert "poolwise_ttft_seconds{" in text


def test_promtool_finds_nothing_to_say_of_the_page(seen):
    metrics, _ = seen
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on this machine (Debian package `prometheus`)")
    said = subprocess.run(
        [promtool, "check", "metrics"], input=metrics.text(), capture_output=True, check=False
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, b"", b"")


def test_readings_are_given_to_the_loop_once(tmp_path):
    deployment = make_deployment(tmp_path)
    live = live_of(deployment)
    for reading in readings(3):
        live.put(reading)
    assert [one.looked_at for one in live.take()] == [NOON + timedelta(minutes=i) for i in range(3)]
    assert live.take() == ()
    deployment.store.close()


def test_the_example_is_what_the_profile_says(tmp_path):
    """The signals that these tests are made of are a fixed point of the comparison."""
    deployment = make_deployment(tmp_path)
    calibrate(deployment.store, deployment.spec, "tiny", readings(1), now=NOON)
    (compared,) = deployment.store.calibrations("shop").comparisons(limit=1)
    assert math.isclose(compared.implied[Leg.PREFILL], 1.0, rel_tol=0.02)
    deployment.store.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        table = metrics_table(everything(Path(folder)).registry)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}")
