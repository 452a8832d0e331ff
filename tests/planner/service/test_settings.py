"""Settings come from the environment, once."""

from pathlib import Path

import pytest

from planner.domain.errors import InputError
from planner.service.election.choosing import make_election
from planner.service.election.lease import Timing
from planner.service.live.watching import source_of
from planner.service.settings import ElectionCarrier, read_settings
from planner.service.spec.file import read_spec
from planner.service.store import Keeping, open_store
from tests.planner.service.examples import write_spec


def test_state_is_kept_where_the_platform_keeps_it():
    settings = read_settings({"HOME": "/home/ann"})
    assert settings.storage.state_dir == Path("/home/ann/.local/state/poolwise")
    assert settings.storage.database_url == (
        "sqlite:////home/ann/.local/state/poolwise/poolwise.db"
    )


def test_xdg_state_home_is_followed_when_absolute_as_its_specification_says():
    assert read_settings({"XDG_STATE_HOME": "/s", "HOME": "/h"}).storage.state_dir == Path(
        "/s/poolwise"
    )
    assert read_settings({"XDG_STATE_HOME": "rel", "HOME": "/h"}).storage.state_dir == Path(
        "/h/.local/state/poolwise"
    )


def test_every_variable_is_read():
    settings = read_settings(
        {
            "POOLWISE_STATE_DIR": "/state",
            "POOLWISE_DATABASE_URL": "postgresql://db/poolwise",
            "POOLWISE_ENGINE_PYTHON": "/opt/vllm/bin/python",
            "POOLWISE_HOST": "::1",
            "POOLWISE_PORT": "0",
            "POOLWISE_KEDA_PORT": "9090",
            "POOLWISE_MAX_BODY_BYTES": "1024",
            "POOLWISE_CATALOGUE": "/etc/poolwise/accelerators.yaml",
        }
    )
    assert settings.catalogue.path == Path("/etc/poolwise/accelerators.yaml")
    assert settings.storage.state_dir == Path("/state")
    assert settings.storage.database_url == "postgresql://db/poolwise"
    assert settings.engine.python == Path("/opt/vllm/bin/python")
    assert (settings.server.host, settings.server.port) == ("::1", 0)
    assert settings.server.max_body_bytes == 1024
    assert settings.server.keda_port == 9090
    assert read_settings({"HOME": "/h"}).server.keda_port is None


@pytest.mark.parametrize("port", ["http", "-1", "70000", "1.5"])
@pytest.mark.parametrize("name", ["POOLWISE_PORT", "POOLWISE_KEDA_PORT"])
def test_a_port_that_is_none_is_refused_by_name(name, port):
    with pytest.raises(InputError, match=name):
        read_settings({"HOME": "/h", name: port})


def test_the_election_has_the_defaults_of_client_go():
    election = read_settings({"HOME": "/h"}).election
    assert election.carrier is ElectionCarrier.DATABASE
    assert election.timing == Timing(lease_duration_s=15.0, renew_deadline_s=10.0, retry_s=2.0)


def test_the_election_is_set_by_variables():
    election = read_settings(
        {
            "POOLWISE_LEADER_ELECTION": "kubernetes",
            "POOLWISE_LEASE_DURATION_S": "6",
            "POOLWISE_RENEW_DEADLINE_S": "4.5",
            "POOLWISE_LEASE_RETRY_S": "0.5",
            "POOLWISE_LEASE_NAME": "planner",
            "POOLWISE_LEASE_NAMESPACE": "ops",
        }
    ).election
    assert election.carrier is ElectionCarrier.KUBERNETES
    assert election.timing == Timing(lease_duration_s=6.0, renew_deadline_s=4.5, retry_s=0.5)
    assert (election.lease_name, election.lease_namespace) == ("planner", "ops")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("POOLWISE_LEADER_ELECTION", "zookeeper"),
        ("POOLWISE_LEASE_DURATION_S", "soon"),
        ("POOLWISE_LEASE_DURATION_S", "-1"),
        ("POOLWISE_LEASE_DURATION_S", "nan"),
        ("POOLWISE_LEASE_DURATION_S", "9"),
        ("POOLWISE_RENEW_DEADLINE_S", "20"),
        ("POOLWISE_LEASE_RETRY_S", "1e9"),
    ],
)
def test_an_election_that_cannot_be_is_refused_by_name(variable, value):
    with pytest.raises(InputError, match=variable):
        read_settings({"HOME": "/h", variable: value})


def test_a_lease_of_a_cluster_outside_of_one_needs_its_namespace(tmp_path):
    settings = read_settings({"HOME": "/h", "POOLWISE_LEADER_ELECTION": "kubernetes"}).election
    store = open_store("sqlite://")
    with pytest.raises(InputError, match="POOLWISE_LEASE_NAMESPACE"):
        make_election(settings, read_spec(write_spec(tmp_path)), store)
    store.close()


def test_how_long_what_is_kept_is_read_and_defaults_to_what_the_docs_say():
    assert read_settings({"HOME": "/h"}).keeping == Keeping()
    names = ("WINDOWS", "HOURS", "DECISIONS", "PLANS", "ROLLOUTS")
    told = {f"POOLWISE_KEEP_{name}_S": str(n) for n, name in enumerate(names, start=1)}
    keeping = read_settings({"HOME": "/h", **told}).keeping
    assert keeping == Keeping(windows_s=1, hours_s=2, decisions_s=3, plans_s=4, rollouts_s=5)
    with pytest.raises(InputError, match="POOLWISE_KEEP_PLANS_S must be a whole number"):
        read_settings({"HOME": "/h", "POOLWISE_KEEP_PLANS_S": "a week"})


def test_what_is_watched_is_named_part_by_part():
    watch = read_settings(
        {
            "HOME": "/h",
            "POOLWISE_WATCH": "prefill=http://p:1,decode=http://d:2, smg=http://r:3,gate=http://g:4",
            "POOLWISE_WATCH_INTERVAL_S": "30",
        }
    )
    reads = source_of(watch, sleep=lambda _: None)
    assert reads is not None
    assert [(t.kind.value, t.url) for t in reads.parts()] == [
        ("gate", "http://g:4"),
        ("engine", "http://p:1"),
        ("engine", "http://d:2"),
        ("router", "http://r:3"),
    ]
    assert watch.watch.interval_s == 30


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"POOLWISE_WATCH": "nginx=http://h:1"}, "POOLWISE_WATCH: "),
        ({"POOLWISE_WATCH": "decode=h"}, "POOLWISE_WATCH: .*is no address"),
        ({"POOLWISE_WATCH_INTERVAL_S": "-1"}, "POOLWISE_WATCH_INTERVAL_S must be a number"),
        ({"POOLWISE_PROMETHEUS_URL": "h"}, "is no address"),
    ],
)
def test_what_cannot_be_watched_is_refused_by_name(environ, message):
    with pytest.raises(InputError, match=message):
        source_of(read_settings({"HOME": "/h", **environ}), sleep=lambda _: None)


def test_nothing_is_watched_with_an_interval_of_0():
    settings = read_settings({"HOME": "/h", "POOLWISE_WATCH_INTERVAL_S": "0"})
    assert source_of(settings, sleep=lambda _: None) is None
