"""A kubeconfig whose credentials come from a command: what is wrong with it is said."""

import json
import stat
import time

import pytest
import yaml

from actuators.kubernetes import credentials
from actuators.kubernetes.actuator import KubernetesActuator
from actuators.kubernetes.connection import connect
from planner.domain.errors import InputError
from planner.domain.target import ClusterTarget
from tests.actuators.kubernetes.rig import DECODE, OPTION, PAIR, PREFILL, rigged

VERSION = "client.authentication.k8s.io/v1"


@pytest.fixture(scope="module")
def rig():
    with rigged() as made:
        yield made


def through(rig, folder, command, **more):
    """A target whose kubeconfig runs a command."""
    path = rig.cluster.kubeconfig(folder / "config")
    config = yaml.safe_load(path.read_text())
    plugin = {"apiVersion": VERSION, "command": command, "interactiveMode": "Never", **more}
    config["users"][0]["user"] = {"exec": plugin}
    path.write_text(yaml.safe_dump(config))
    return ClusterTarget(kubeconfig=str(path))


def script(folder, text):
    path = folder / "get-token"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return "./get-token"  # counts from the kubeconfig, not from where Poolwise runs


def credential(**status):
    return json.dumps({"apiVersion": VERSION, "kind": "ExecCredential", "status": status})


def read(rig, target):
    actuator = KubernetesActuator(
        api=connect(target),
        cluster=target,
        shapes=[(PREFILL, OPTION), (DECODE, OPTION)],
        objects=PAIR,
    )
    return {pool.shape: pool.ready for pool in actuator.read_fleet().pools}


def test_a_token_of_a_command_is_used(rig, tmp_path):
    told = credential(token=rig.cluster.admin_token)
    target = through(
        rig,
        tmp_path,
        script(tmp_path, 'test "$KIND" = it && test "$1" = eu && cat token'),
        args=["eu"],
        env=[{"name": "KIND", "value": "it"}],
    )
    (tmp_path / "token").write_text(told)
    assert read(rig, target) == {PREFILL: 1, DECODE: 2}


def test_a_token_that_has_expired_is_asked_for_again(rig, tmp_path):
    """And a command that fails by then is told, too: nobody becomes anonymous meanwhile."""
    target = through(rig, tmp_path, script(tmp_path, "echo x >> asked; cat token"))
    old = {"expirationTimestamp": "2001-01-01T00:00:00Z"}
    (tmp_path / "token").write_text(credential(token=rig.cluster.admin_token, **old))
    api = connect(target)
    actuator = KubernetesActuator(api=api, cluster=target, shapes=[(DECODE, OPTION)], objects=PAIR)
    assert actuator.read_fleet().pools[0].ready == 2
    assert len((tmp_path / "asked").read_text().split()) > 1
    (tmp_path / "token").unlink()
    with pytest.raises(InputError, match=r"`\./get-token` .* failed with exit status 1"):
        actuator.read_fleet()


@pytest.mark.parametrize(
    ("command", "more", "said"),
    [
        ("no-such-plugin", {}, r"`no-such-plugin` of the kubeconfig is not on the PATH: install"),
        (
            "no-such-plugin",
            {"installHint": "get it\nfrom the shop"},
            r"\(its installHint: get it from the shop\)",
        ),
        ("./no-such-plugin", {}, r"`\./no-such-plugin` .* is no file that can be run"),
        ("false", {}, r"`false` .* failed with exit status 1 \(it said nothing\)"),
        ("echo", {"args": ["hello"]}, r"`echo` .* answered no ExecCredential"),
        ("echo", {"args": ["[]"]}, r"`echo` .* neither a token nor a certificate"),
        ("echo", {"args": [credential()]}, r"`echo` .* neither a token nor a certificate"),
    ],
)
def test_a_command_that_gives_no_credentials_is_told(rig, tmp_path, command, more, said):
    rig.cluster.forget_calls()
    with pytest.raises(InputError, match=said) as caught:
        connect(through(rig, tmp_path, command, **more))
    assert "\n" not in str(caught.value)
    assert rig.cluster.calls == []


def test_what_a_command_that_fails_says_is_passed_on(rig, tmp_path):
    command = script(tmp_path, "echo 'your session\nis over' >&2; exit 3")
    with pytest.raises(InputError, match=r"exit status 3 \(your session is over\)"):
        connect(through(rig, tmp_path, command))


def test_a_command_that_hangs_is_ended_with_what_it_started(rig, tmp_path, monkeypatch):
    monkeypatch.setattr(credentials, "PLUGIN_TIMEOUT_S", 2.0)
    command = script(tmp_path, "(while :; do date +%s%N > alive; sleep 0.1; done) & wait")
    with pytest.raises(InputError, match="did not answer within 2 s: run it by hand"):
        connect(through(rig, tmp_path, command))
    last = (tmp_path / "alive").read_text()
    time.sleep(1.0)
    assert (tmp_path / "alive").read_text() == last
