"""Alert rules and dashboard: valid, of metrics that exist, tested, and with a way out for each."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from planner.service.telemetry.signal_metrics import FAMILIES
from tests.planner.service.telemetry.test_metrics_page import everything

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "monitoring"
RULES = yaml.safe_load((FOLDER / "poolwise.rules.yaml").read_text())
TESTS = yaml.safe_load((FOLDER / "poolwise.rules.test.yaml").read_text())
BOARD = json.loads((FOLDER / "dashboard.json").read_text())
OPERATIONS = ROOT / "docs" / "operations.md"
EVERY = [rule for group in RULES["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in EVERY if "alert" in rule]
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
NAME = re.compile(r"\bpoolwise[_:][a-z0-9_:]+")
LABELS = re.compile(r"\bby \(([^)]*)\)")


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    return everything(tmp_path_factory.mktemp("metrics")).registry.described()


@pytest.fixture(scope="module")
def known(described):
    series = {name for one in described for name in one.series}
    return series | {rule["record"] for rule in EVERY if "record" in rule}


def promtool(*arguments: str) -> str:
    binary = shutil.which("promtool")
    if binary is None:
        pytest.skip("no promtool on this machine (Debian package `prometheus`)")
    done = subprocess.run([binary, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_query_of_rules_and_dashboard_is_of_metrics_that_exist(known):
    asked = {name for text in [r["expr"] for r in EVERY] + QUERIES for name in NAME.findall(text)}
    assert len(asked) > 60
    assert asked - known == set()


def test_every_query_groups_by_labels_that_its_metric_has(described):
    labels = {name: {*one.labels, "le"} for one in described for name in one.series}
    for text in [r["expr"] for r in EVERY] + QUERIES:
        wanted = {word.strip() for found in LABELS.findall(text) for word in found.split(",")}
        names = [name for name in NAME.findall(text) if name in labels]
        assert all(wanted <= labels[name] for name in names), text


def test_all_that_is_seen_of_the_deployment_is_on_the_dashboard():
    shown = {name for text in QUERIES for name in NAME.findall(text)}
    assert {family.name for family in FAMILIES} - shown == {
        "poolwise_signals_timestamp_seconds",  # in an alert
        "poolwise_slo_attainment_high_ratio",
        "poolwise_slo_attainment_low_ratio",
        "poolwise_slo_error_budget_used_ratio",  # burn rates say the same over longer windows
    }


def test_panels_have_their_own_ids_and_lie_side_by_side():
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    cells = [
        (x, y)
        for panel in BOARD["panels"]
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_has_a_way_out_a_severity_and_a_test(alert):
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert ROOT / page == OPERATIONS
    headings = re.findall(r"^#+ (.*)$", OPERATIONS.read_text(), flags=re.MULTILINE)
    assert anchor in {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}
    assert alert["labels"]["severity"] in {"page", "ticket", "info"}
    tested = [t for part in TESTS["tests"] for t in part["alert_rule_test"]]
    own = [t for t in tested if t["alertname"] == alert["alert"]]
    assert any(t["exp_alerts"] for t in own), "never fires in a test"


def test_every_runbook_entry_is_of_an_alert():
    entries = re.findall(r"^### (Poolwise\w+)$", OPERATIONS.read_text(), flags=re.MULTILINE)
    assert sorted(entries) == sorted(rule["alert"] for rule in ALERTS)


def test_the_rules_do_what_their_tests_say():
    promtool("test", "rules", str(FOLDER / "poolwise.rules.test.yaml"))


def test_every_query_of_the_dashboard_is_promql(tmp_path):
    rules = [
        {"record": f"panel:query{i}", "expr": text.replace("$deployment", "shop")}
        for i, text in enumerate(QUERIES)
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(QUERIES)} rules found" in promtool("check", "rules", str(path))
