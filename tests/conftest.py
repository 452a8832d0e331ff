"""Flags and data shared by all tests."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

CHROMIUM_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-engine",
        action="store_true",
        help="skip the tests that start real vLLM engines",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {}
    if config.getoption("--no-engine"):
        reasons["engine"] = "--no-engine was given"
    if shutil.which("nvidia-smi") is None:
        reasons["gpu"] = "no NVIDIA driver on this machine (nvidia-smi)"
    if shutil.which("chromium") is None:
        reasons["browser"] = "no Chromium on this machine (apt-get install chromium)"
    elif importlib.util.find_spec("playwright") is None:
        reasons["browser"] = "playwright is not installed (pip install playwright)"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def poolwise_data() -> Path:
    """The folder of real traces and profiles, where the machine has it."""
    folder = os.environ.get("POOLWISE_DATA")
    if not folder:
        pytest.skip("POOLWISE_DATA is not set: the real traces are not on this machine")
    return Path(folder).resolve()


@pytest.fixture(scope="module")
def chromium():
    """A browser for the tests of one file: while it runs, no other event loop can."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(CHROMIUM_FLAGS)
        )
        yield browser
        browser.close()
