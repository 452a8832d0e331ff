"""`poolwise serve` of several specs: what it refuses, and two deployments over a real socket."""

import signal
import socket
import time
from contextlib import contextmanager

import httpx
import pytest
import yaml

from planner.domain.errors import InputError, SpecError
from planner.service.api.examples import SPEC
from planner.service.hosting.overlaps import check_apart
from planner.service.server import ServeOptions, run, spec_files
from planner.service.spec.file import read_spec
from planner.service.telemetry.observability import WatchSettings
from tests.planner.service.examples import fleet, write_spec
from tests.planner.service.served import hand_in, served

PATIENCE_S = 600.0


def written(folder, name, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    return write_spec(folder, name=name, **changes)


def in_cluster(kubeconfig="/none", *, names=("prefill", "decode"), **more):
    objects = [
        {"role": role, "kind": "Deployment", "name": name}
        for role, name in zip(("prefill", "decode"), names, strict=True)
    ]
    return {"kind": "kubernetes", "kubeconfig": kubeconfig, "objects": objects, **more}


def refused(*paths):
    with pytest.raises(InputError) as told:
        run(ServeOptions(specs=paths))
    return str(told.value)


def test_two_specs_of_one_name_are_refused_naming_both_files(tmp_path):
    one, other = written(tmp_path / "a", "shop"), written(tmp_path / "b", "shop")
    said = refused(one, other)
    assert all(part in said for part in (str(one), str(other), "both name deployment shop"))


def test_a_broken_spec_names_itself_and_nothing_is_served(tmp_path):
    one, broken = written(tmp_path / "a", "shop"), written(tmp_path / "b", "mill")
    broken.write_text(broken.read_text().replace("ttft_s: 0.5", "ttft_s: soon"))
    assert str(broken) in refused(one, broken)


def test_a_folder_stands_for_the_specs_in_it(tmp_path):
    one, other = written(tmp_path, "shop"), tmp_path / "mill.yml"
    other.write_text(one.read_text().replace("name: shop", "name: mill"))
    assert spec_files([tmp_path, one]) == (other, one)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no spec"):
        spec_files([tmp_path / "empty"])


@pytest.mark.parametrize(
    ("mine", "theirs", "shared"),
    [
        (in_cluster(), in_cluster(), "Deployment default/decode"),
        (in_cluster(), in_cluster(names=("a", "decode")), "Deployment default/decode"),
        (in_cluster(), in_cluster(namespace="other"), None),
        (in_cluster(), in_cluster("/other"), None),
        (in_cluster(), in_cluster(names=("a", "b")), None),
        ({"kind": "local"}, {"kind": "local"}, "the state directory"),
        ({"kind": "dry_run"}, {"kind": "dry_run"}, None),
        (
            {"kind": "kubernetes", "selector": "app=chat"},
            {"kind": "kubernetes", "selector": "app=chat,tier=gpu"},
            "app=chat",
        ),
        (
            {"kind": "kubernetes", "selector": "app=chat"},
            {"kind": "kubernetes", "selector": "app=search"},
            None,
        ),
    ],
)
def test_two_deployments_on_one_target_are_refused(tmp_path, mine, theirs, shared):
    one = read_spec(written(tmp_path / "a", "shop", target=mine))
    other = read_spec(written(tmp_path / "b", "mill", target=theirs))
    if shared is None:
        check_apart(one, (other,))
        return
    with pytest.raises(SpecError) as told:
        check_apart(one, (other,))
    assert all(part in str(told.value) for part in (shared, "shop", "mill"))


def test_of_several_deployments_each_sees_its_own_parts_only():
    watch = WatchSettings(
        targets=("shop/decode=http://a:1", "mill/gate=http://b:2/x/y"),
        prometheus_url="http://p",
        prometheus_selector='namespace="$deployment"',
    )
    watch.check_several()
    assert watch.of("shop", alone=False).targets == ("decode=http://a:1",)
    assert watch.of("mill", alone=False).targets == ("gate=http://b:2/x/y",)
    assert watch.of("mill", alone=False).prometheus_selector == 'namespace="mill"'
    loose = WatchSettings(targets=("decode=http://a:1",), prometheus_url="http://p")
    assert loose.of("shop", alone=True) == loose
    lost = loose.of("shop", alone=False)
    assert (lost.targets, lost.prometheus_url) == ((), None)
    with pytest.raises(InputError, match="NAME/ROLE=URL"):
        loose.check_several()
    with pytest.raises(InputError, match="POOLWISE_PROMETHEUS_SELECTOR"):
        WatchSettings(prometheus_url="http://p").check_several()


@contextmanager
def silent_cluster(folder):
    """A kubeconfig of an API server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        yield str(path)


def names(client):
    return [one["name"] for one in client.get("/v1/deployments").json()["deployments"]]


def outcomes(client, name):
    listed = client.get(f"/v1/deployments/{name}/decisions").json()["decisions"]
    return [one["outcome"] for one in listed]


def decided(client, name):
    """How many ticks came to a decision by what was seen."""
    found = outcomes(client, name)
    return found.count("advised") + found.count("unchanged")


def test_one_hangs_the_other_ticks_a_third_comes_and_all_is_so_after_a_restart(tmp_path):
    often = {"mode": "advise", "slow_interval_s": 1}
    short = {"window_s": 2.0, "horizon_windows": 2}
    written(tmp_path, "shop", loop=often, forecast=short)
    with silent_cluster(tmp_path) as kubeconfig:
        mill = written(
            tmp_path / "mill", "mill", loop=often, forecast=short, target=in_cluster(kubeconfig)
        )
        both = ("--spec", str(mill), "--insecure-local")
        with (
            served(tmp_path, *both) as (process, facts),
            httpx.Client(base_url=facts["url"], timeout=120) as client,
        ):
            assert [one["deployment"] for one in facts["deployments"]] == ["mill", "shop"]
            client.put("/v1/deployments/shop/fleet", json=fleet())
            until = time.monotonic() + PATIENCE_S
            while decided(client, "shop") < 2:
                assert time.monotonic() < until, outcomes(client, "shop")
                for name in ("shop", "mill"):
                    hand_in(client, f"/v1/deployments/{name}")
                time.sleep(0.5)
            assert set(outcomes(client, "mill")) <= {"failed", "no_data"}
            assert client.put("/v1/deployments/mill/mode", json={"mode": "off"}).is_success
            modes = [
                client.get(f"/v1/deployments/{name}/directives").json()["mode"]
                for name in ("mill", "shop")
            ]
            assert modes == ["off", "advise"]
            told = client.get("/metrics").text
            assert 'poolwise_leader{deployment="mill"} 1.0' in told
            assert 'poolwise_leader{deployment="shop"} 1.0' in told
            assert client.put("/v1/deployments/demo", json=SPEC).status_code == 201
            assert client.delete("/v1/deployments/mill").status_code == 204
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=PATIENCE_S) == 0
        with (
            served(tmp_path, *both) as (_, facts),
            httpx.Client(base_url=facts["url"], timeout=120) as client,
        ):
            assert names(client) == ["demo", "shop"]
            assert decided(client, "shop") >= 2
            assert client.get("/v1/deployments/mill/decisions").status_code == 404
