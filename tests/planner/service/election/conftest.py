"""Every carrier of a lease behind one fixture, on real databases and the fake API server."""

from dataclasses import dataclass, field

import pytest

from planner.service.election.cluster_lease import ClusterLease
from planner.service.election.elector import Elector
from planner.service.election.lease import LeaseCarrier, Timing
from planner.service.store import Store, open_store
from tests.kubernetes import FakeCluster

TIMING = Timing(lease_duration_s=15.0, renew_deadline_s=10.0, retry_s=2.0)


@dataclass
class Place:
    """Where candidates meet: one database, and the carrier of the lease."""

    store: Store
    carrier: LeaseCarrier
    clock: list[float] = field(default_factory=lambda: [1000.0])

    def candidate(self, identity, *, ahead_s=0.0, timing=TIMING):
        """An elector whose machine's clock is so far ahead of the others'."""
        return Elector(
            self.carrier,
            self.store.lease("shop"),
            identity=identity,
            timing=timing,
            clock=lambda: self.clock[0] + ahead_s,
        )

    def wait(self, seconds):
        self.clock[0] += seconds


@pytest.fixture(params=["sqlite", "postgresql", "kubernetes"])
def place(request, tmp_path):
    url = f"sqlite:///{tmp_path / 'poolwise.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_database()
    store = open_store(url)
    if request.param == "kubernetes":
        with FakeCluster() as cluster:
            api = cluster.client()
            yield Place(store, ClusterLease(api=api, namespace="default", name="poolwise"))
    else:
        yield Place(store, store.lease("shop"))
    store.close()
