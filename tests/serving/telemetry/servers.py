"""Servers on loopback for tests: a metrics page that changes, and a real Prometheus."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from serving.workers.processes import free_ports
from tests.fakes.pages import Asked, answering


@dataclass
class Served:
    """What is answered now; None: a broken connection. `headers` are those of the requests."""

    text: str | None
    status: int = 200
    delay_s: float = 0.0
    url: str = ""
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)


@contextmanager
def serving(served: Served) -> Iterator[Served]:
    """Answer every GET and POST with what is served at that moment."""

    def answer(asked: Asked) -> tuple[int, str] | None:
        served.bodies.append(asked.body)
        served.headers.append(asked.headers)
        time.sleep(served.delay_s)
        return None if served.text is None else (served.status, served.text)

    with answering(answer) as served.url:
        yield served


CONFIG = """
global: {{scrape_interval: {every_s}s, scrape_timeout: {every_s}s}}
scrape_configs:
{jobs}
"""
JOB = """
  - job_name: {job}
    static_configs: [{{targets: ['{target}'], labels: {{{labels}}}}}]
"""


@contextmanager
def prometheus(
    folder: Path, targets: dict[str, tuple[str, str]], *, every_s: int = 1
) -> Iterator[str]:
    """A real Prometheus that scrapes these jobs: name, to address and labels. Its address."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("no Prometheus on this machine (Debian package `prometheus`)")
    jobs = "".join(
        JOB.format(job=job, target=url.removeprefix("http://"), labels=labels)
        for job, (url, labels) in targets.items()
    )
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(every_s=every_s, jobs=jobs))
    (port,) = free_ports(1)
    log = (folder / "prometheus.log").open("w")
    process = subprocess.Popen(
        [
            binary,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: _is_ready(url), f"Prometheus did not start: see {folder}/prometheus.log")
        yield url
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def value_of(url: str, query: str) -> float | None:
    """The first value of an instant query."""
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, timeout=5).json()
    result = answer["data"]["result"]
    return float(result[0]["value"][1]) if result else None


def until(condition, otherwise: str, *, timeout_s: float = 30.0) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)
