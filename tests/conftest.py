"""Flags and data shared by all tests."""

import os
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-engine",
        action="store_true",
        help="skip the tests that start real vLLM engines",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--no-engine"):
        return
    skip = pytest.mark.skip(reason="--no-engine was given")
    for item in items:
        if item.get_closest_marker("engine"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def poolwise_data() -> Path:
    """The folder of real traces and profiles, where the machine has it."""
    folder = os.environ.get("POOLWISE_DATA")
    if not folder:
        pytest.skip("POOLWISE_DATA is not set: the real traces are not on this machine")
    return Path(folder).resolve()
