"""Futures in several processes give what they give in one."""

import importlib.util
import os
import subprocess
import sys

import pytest

from planner.domain.errors import InputError
from planner.service.answers.parallel import Backend, ordered_map
from planner.simulate.futures import Stopping, sample_futures
from tests.planner.simulate.test_futures import figures, source

HAS_RAY = importlib.util.find_spec("ray") is not None


def test_the_answer_does_not_depend_on_the_number_of_processes():
    stopping = Stopping(most_futures=20, precision_ratio=0.02)
    alone = sample_futures(source(rps=11.0), stopping)
    beside = sample_futures(source(rps=11.0), stopping, each=ordered_map(jobs=2))
    assert figures(alone) == figures(beside)


@pytest.mark.parametrize("jobs", [-1, 5000])
def test_an_impossible_number_of_processes_is_refused(jobs):
    with pytest.raises(InputError, match="jobs"):
        ordered_map(jobs=jobs)


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed: nothing is missing")
def test_ray_that_is_missing_is_named_with_what_to_install():
    with pytest.raises(InputError, match=r"poolwise\[ray\]"):
        ordered_map(jobs=2, backend=Backend.RAY)


@pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed (extra `ray`)")
def test_a_ray_cluster_of_two_workers_gives_the_same_answer():
    """In a process of its own: Ray leaves threads and open files behind."""
    code = """
import ray
from planner.service.answers.parallel import Backend, ordered_map
from planner.simulate.futures import Stopping, sample_futures
from tests.planner.simulate.test_futures import figures, source

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
stopping = Stopping(most_futures=10)
each = ordered_map(jobs=2, backend=Backend.RAY)
assert figures(sample_futures(source(), stopping, each=each)) == figures(
    sample_futures(source(), stopping)
)
print("workers", int(ray.cluster_resources()["CPU"]))
ray.shutdown()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"},
    )
    assert done.returncode == 0, done.stderr
    assert "workers 2" in done.stdout
