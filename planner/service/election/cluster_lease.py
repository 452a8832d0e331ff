"""The lease as an object of the cluster, `coordination.k8s.io/v1`, as client-go keeps it."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from kubernetes.client import ApiClient

from actuators.kubernetes import resources
from actuators.kubernetes.client import ClusterError
from actuators.kubernetes.resources import Json
from planner.service.election.lease import Lease

API_VERSION = "coordination.k8s.io/v1"
PLURAL = "leases"
HURRY = resources.Patience(timeout_s=3.0, tries=1)
"""A renewal is tried again soon, and is of no use when it comes late."""
_NOT_THERE = 404
_CHANGED = 409


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterLease:
    """An object that is replaced only while its resourceVersion is the one seen.

    Its term is `leaseTransitions`.
    """

    api: ApiClient
    namespace: str
    name: str

    @property
    def label(self) -> str:
        """The object."""
        return f"Lease {self.namespace}/{self.name}"

    def read(self) -> Lease | None:
        """The object as a lease. Raises ClusterError."""
        path = resources.path_of(API_VERSION, self.namespace, PLURAL, self.name)
        try:
            found = resources.get(self.api, path, f"read {self.label}", patience=HURRY)
        except ClusterError as error:
            if error.status == _NOT_THERE:
                return None
            raise
        return _lease(found)

    def replace(self, seen: Lease | None, wanted: Lease) -> Lease | None:
        """Create or replace the object; None when somebody else did. Raises ClusterError."""
        path = resources.path_of(API_VERSION, self.namespace, PLURAL)
        doing = f"write {self.label}"
        body = self._body(seen, wanted)
        try:
            if seen is None:
                return _lease(resources.create(self.api, path, body, doing, patience=HURRY))
            path = f"{path}/{self.name}"
            return _lease(resources.replace(self.api, path, body, doing, patience=HURRY))
        except ClusterError as error:
            if error.status == _CHANGED or (seen is not None and error.status == _NOT_THERE):
                return None
            raise

    def _body(self, seen: Lease | None, wanted: Lease) -> Json:
        metadata: Json = {"name": self.name, "namespace": self.namespace}
        if seen is not None:
            metadata["resourceVersion"] = seen.version
        return {
            "apiVersion": API_VERSION,
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": wanted.holder,
                "leaseDurationSeconds": math.ceil(wanted.duration_s),
                "leaseTransitions": wanted.term,
                "renewTime": f"{wanted.renewed_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
            },
        }


def _lease(found: Json) -> Lease:
    """What an object says; one that somebody made empty is free."""
    renewed = resources.text(found, "spec", "renewTime")
    return Lease(
        holder=resources.text(found, "spec", "holderIdentity"),
        term=resources.number(found, "spec", "leaseTransitions"),
        duration_s=float(resources.number(found, "spec", "leaseDurationSeconds")),
        renewed_at=datetime.fromisoformat(renewed) if renewed else datetime.fromtimestamp(0, UTC),
        version=resources.text(found, "metadata", "resourceVersion"),
    )
