"""`poolwise kv` on a deployment of stub workers: nobody types an address, ranks are told apart."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import psutil

from planner.domain.fleet import ReplicaShape, Role
from planner.service.live.kv_watching import deployed_source, watch_kv
from serving.fleet.changes import Changes
from serving.fleet.deployment import LocalDeployment
from serving.fleet.endpoints import read_endpoints, write_endpoints
from serving.kv.view import KvSnapshot
from serving.workers.launcher import LocalSite
from tests.serving.conftest import DECODE, PREFILL, stub_site
from tests.serving.fleet.test_deployment import running
from tests.serving.kv.wire import Publisher, payload, publisher, stored

__all__ = ["stub_site"]
TWO_RANKS = replace(DECODE, dp=2)


def added(deployment: LocalDeployment, shape: ReplicaShape) -> str:
    worker = deployment.start(shape)
    deployment.await_ready(worker)
    deployment.route(worker)
    return worker.name


def told(deployment: LocalDeployment, name: str) -> dict[str, str]:
    """What a worker was told about KV events, from its command line."""
    supervisor, _ = deployment.launcher.process_of(deployment.member(name).worker)
    line = psutil.Process(supervisor).cmdline()
    return json.loads(line[line.index("--kv-events-config") + 1])


@contextmanager
def rank(config: dict[str, str], number: int) -> Iterator[Publisher]:
    """One rank's sender, which adds its number to both ports, as vLLM's does."""
    ends = []
    for name in ("endpoint", "replay_endpoint"):
        host, _, port = config[name].rpartition(":")
        ends.append(f"{host}:{int(port) + number}")
    with publisher(*ends) as sender:
        yield sender


def test_all_workers_and_their_ranks_are_followed_from_their_beginning(
    stub_site, poolwise, monkeypatch
) -> None:
    site = replace(stub_site(), kv_events=True)
    monkeypatch.setenv("POOLWISE_STATE_DIR", str(site.state_dir))
    with running(site) as deployment, ExitStack() as senders:
        prefill, decode = added(deployment, PREFILL), added(deployment, TWO_RANKS)
        caches = [(prefill, 0, 3), (decode, 0, 5), (decode, 1, 7)]
        for name, number, blocks in caches:
            sender = senders.enter_context(rank(told(deployment, name), number))
            sender.send(payload(stored(range(1, blocks + 1))))  # before anybody listens
        status, out, err = poolwise("kv", "--for", "0.5", "--json")
    assert (status, err) == (0, "")
    found = {w["name"]: w for w in json.loads(out)["workers"]}
    assert {name: w["held_tokens"] for name, w in found.items()} == {
        "prefill-1": 3 * 128,
        "decode-2 rank 0": 5 * 128,
        "decode-2 rank 1": 7 * 128,
    }
    assert all(w["is_complete"] for w in found.values())


def test_workers_that_come_and_go_are_followed(stub_site) -> None:
    site = replace(stub_site(), kv_events=True)
    with running(site, Role.PREFILL, Role.DECODE) as deployment:
        snapshots = follow(site)
        assert names(next(snapshots)) == {"prefill-1", "decode-2"}
        changes = Changes(deployment, PREFILL)
        changes.add(Role.PREFILL)
        changes.remove("prefill-1")
        with rank(told(deployment, "prefill-3"), 0) as sender:
            sender.send(payload(stored([1, 2])))
            next(snapshots)
            (new,) = [w for w in next(snapshots).workers if w.name == "prefill-3"]
        assert new.held_tokens == 2 * 128
        assert names(next(snapshots)) == {"prefill-3", "decode-2"}


def follow(site: LocalSite) -> Iterator[KvSnapshot]:
    def now():
        return deployed_source(read_endpoints(site.published_in))

    return watch_kv(now, every_s=0.5, kv_bytes_per_token=None)


def names(snapshot: KvSnapshot) -> set[str]:
    return {w.name for w in snapshot.workers}


def test_a_deployment_without_events_says_how_to_have_them(
    stub_site, poolwise, monkeypatch
) -> None:
    site = stub_site()
    monkeypatch.setenv("POOLWISE_STATE_DIR", str(site.state_dir))
    with running(site, Role.PREFILL, Role.DECODE):
        status, out, err = poolwise("kv", "--for", "0.5")
    assert (status, out) == (1, "")
    assert "poolwise deployment up --kv-events" in err


def test_a_deployment_that_does_not_serve_is_not_told_to_send_events(
    stub_site, poolwise, monkeypatch
) -> None:
    site = replace(stub_site(), kv_events=True)
    monkeypatch.setenv("POOLWISE_STATE_DIR", str(site.state_dir))
    with running(site) as deployment:
        status, _out, err = poolwise("kv", "--for", "0.5")
        assert (status, "--kv-events" in err) == (1, False)
        assert "no worker of the deployment takes traffic yet" in err
        left = deployment.endpoints()
    with subprocess.Popen(["true"]) as gone:
        pass
    write_endpoints(site.state_dir, replace(left, pid=gone.pid))  # as kill -9 leaves it
    status, _out, err = poolwise("kv", "--for", "0.5")
    assert (status, "--kv-events" in err) == (1, False)
    assert f"the deployment's process ({gone.pid}) was killed" in err
