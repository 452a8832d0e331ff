"""Fixtures for tests that need a cluster: `from tests.kubernetes.fixtures import cluster`.

In a `conftest.py`: `from tests.kubernetes.fixtures import cluster, kubeconfig` and `__all__`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubernetes.cluster import FakeCluster


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """A running fake cluster with every CRD of `crds/`."""
    with FakeCluster(crds="all") as running:
        yield running


@pytest.fixture
def kubeconfig(cluster: FakeCluster, tmp_path: Path) -> Path:
    """A kubeconfig file of the cluster's administrator."""
    return cluster.kubeconfig(tmp_path / "kubeconfig")
