"""What the contract is checked on: the fake, and a real cluster where KUBECONFIG names one."""

import os
from collections.abc import Iterator

import pytest

from tests.kubernetes.cluster import FakeCluster
from tests.kubernetes.fixtures import cluster
from tests.kubernetes.site import Site, fake_site, real_site

__all__ = ["cluster"]


@pytest.fixture(scope="session", params=["fake", pytest.param("real", marks=pytest.mark.cluster)])
def served(request: pytest.FixtureRequest) -> Iterator[Site]:
    """An API server with the contract's own kind, for the whole session."""
    if request.param == "fake":
        with FakeCluster() as running:
            site = fake_site(running)
            yield site
            site.close()
        return
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG is not set: no real cluster to check the contract on")
    site = real_site()
    yield site
    site.close()


@pytest.fixture
def site(served: Site) -> Iterator[Site]:
    """The API server with an empty namespace of the test's own."""
    with served.in_namespace() as own:
        yield own
