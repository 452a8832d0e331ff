"""Settings come from the environment, once."""

from pathlib import Path

import pytest

from planner.domain.errors import InputError
from planner.service.settings import read_settings


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
