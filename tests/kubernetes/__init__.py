"""A Kubernetes API server for tests, and simulated controllers behind it; see README.md here."""

from tests.kubernetes.cluster import FakeCluster
from tests.kubernetes.faults import Fault

__all__ = ["FakeCluster", "Fault"]
