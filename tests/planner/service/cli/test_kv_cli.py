"""`poolwise kv` and `poolwise kv-tiers`, with stub workers and real sockets."""

import json

import pytest

from serving.kv.events import EventAddress, events_address
from serving.workers.processes import free_port_runs, free_ports
from tests.serving.diagnosis.live import LoadedWorker, running
from tests.serving.kv.wire import mixed, payload, publisher, removed, stored
from tests.serving.telemetry.servers import Served, serving


def test_the_view_shows_what_came_before_it_and_what_metrics_say(poolwise):
    port, replay = free_ports(2)
    text = events_address(port, replay)
    address = EventAddress.parse(text)
    with running(LoadedWorker()) as url, publisher(address.events, address.replay) as sender:
        sender.send(payload(stored([mixed(i) for i in range(8)], tokens=16)))
        sender.send(payload(removed([mixed(7)]), at_s=2.0))
        status, out, _ = poolwise(
            "kv", "--worker", f"prefill={url}", "--events", text, "--for", "1", "--json"
        )
    assert status == 0
    (worker,) = json.loads(out)["workers"]
    assert (worker["held_tokens"], worker["is_complete"]) == (7 * 16, True)
    assert worker["capacity_tokens"] == 16_000
    assert worker["cached_ratio"] == pytest.approx(112 / 16_000)
    assert worker["sources"]["local_ratio"] == pytest.approx(0.3)
    assert json.loads(out)["policies"][0]["option"] == "--prefill-policy least_load"


def test_each_rank_of_a_worker_has_its_own_figures(poolwise):
    page = "".join(
        f'vllm:num_requests_waiting{{engine="{rank}"}} {waiting}\n'
        f'vllm:kv_cache_usage_perc{{engine="{rank}"}} 0.5\n'
        f'vllm:cache_config_info{{engine="{rank}",block_size="16",num_gpu_blocks="{blocks}"}} 1\n'
        for rank, waiting, blocks in ((0, 2, 100), (1, 5, 200))
    )
    (first,) = free_port_runs((2,))
    text = f"tcp://127.0.0.1:{first}?ranks=2"
    with serving(Served(page)) as worker:
        status, out, _ = poolwise(
            "kv", "--worker", f"decode={worker.url}", "--events", text, "--for", "0.5", "--json"
        )
    assert status == 0
    ranks = json.loads(out)["workers"]
    assert [(w["waiting"], w["capacity_tokens"]) for w in ranks] == [(2.0, 1600), (5.0, 3200)]


def test_people_are_told_what_is_not_known(poolwise):
    (port,) = free_ports(1)
    with running(LoadedWorker()) as url:
        status, out, _ = poolwise(
            "kv", "--worker", f"prefill={url}", "--events", events_address(port), "--for", "0.5"
        )
    assert status == 0
    assert "no event came" in out
    assert "Found now" in out


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--worker", "prefill=http://127.0.0.1:1"], 2, "one address for each"),
        (["--events", "tcp://127.0.0.1:1"], 2, "one address for each"),
        (["--worker", "prefill=http://127.0.0.1:1", "--events", "5557"], 2, "KV event address"),
        (["--for", "0"], 2, "seconds"),
        ([], 1, "no deployment runs"),
        (
            [
                "--worker",
                "prefill=http://127.0.0.1:1",
                "--events",
                "tcp://127.0.0.1:{port}",
                "--for",
                "0.5",
            ],
            1,
            "no worker answered",
        ),
    ],
)
def test_what_cannot_be_watched_is_said(poolwise, folder, monkeypatch, arguments, status, said):
    monkeypatch.setenv("POOLWISE_STATE_DIR", str(folder / "state"))
    port = str(free_ports(1)[0])
    found, out, err = poolwise("kv", *(a.replace("{port}", port) for a in arguments))
    assert (found, out) == (status, "")
    assert said in err


def test_a_tier_is_printed_to_be_copied(poolwise):
    status, out, _ = poolwise("kv-tiers", "disk", "--folder", "/var/kv", "--host-gib", "64")
    assert status == 0
    config = json.loads(out.splitlines()[0].partition("'")[2].rstrip("'"))
    assert config["kv_connector"] == "MultiConnector"
    status, out, _ = poolwise("kv-tiers", "lmcache", "--json")
    assert json.loads(out)["flags"] == ["--disable-hybrid-kv-cache-manager"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["attic"], 2, "host, disk, lmcache"),
        (["disk"], 2, "name the folder"),
        (["host", "--cpu"], 1, "without an accelerator"),
        (["host", "--mover", "carrier-pigeon"], 2, "nixl, mooncake, none"),
        (["host", "--host-gib", "-1"], 2, "--host-gib"),
    ],
)
def test_a_tier_that_cannot_be_is_refused(poolwise, arguments, status, said):
    found, out, err = poolwise("kv-tiers", *arguments)
    assert (found, out) == (status, "")
    assert said in err
