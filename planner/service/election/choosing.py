"""The election that the settings ask for."""

import os
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path

from planner.domain.errors import InputError
from planner.domain.spec import Spec, TargetKind
from planner.domain.target import ClusterTarget
from planner.service.election.elector import Elector, NoElection
from planner.service.election.leadership import Election
from planner.service.election.lease import LeaseCarrier
from planner.service.settings import ElectionCarrier, ElectionSettings
from planner.service.store import Store
from planner.service.store.leases import StoredLease

POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
LONGEST_HOST = 150


SEVERAL = "poolwise"
"""Name of the lease of a server that is started with several specs."""


def lease_of(names: Sequence[str], settings: ElectionSettings) -> str:
    """The name of a server's lease, under which its jobs are kept, too.

    That of its one deployment, or what `POOLWISE_LEASE_NAME` says; with that, servers of different
    deployments can share a database.
    """
    if len(names) == 1:
        return names[0]
    return settings.lease_name or SEVERAL


def make_election(
    settings: ElectionSettings, spec: Spec, store: Store, *, lease: str | None = None
) -> Election:
    """Who takes part in which election; nothing is asked yet.

    Parameters
    ----------
    spec : Spec
        Says which cluster a Lease is kept in.
    lease : str or None
        Its name; None: the spec's.

    Raises
    ------
    InputError
        When a Lease of a cluster is wanted and there is no cluster to talk to.
    """
    if settings.carrier is ElectionCarrier.OFF:
        return NoElection()
    name = lease or spec.name
    terms = store.lease(name)
    return Elector(
        _carrier(settings, spec, terms, name=name),
        terms,
        identity=new_identity(),
        timing=settings.timing,
    )


def new_identity() -> str:
    """A name that no other process has, nor this one after a restart: host, process, chance."""
    host = socket.gethostname()[:LONGEST_HOST]
    return f"{host}_{os.getpid()}_{secrets.token_hex(3)}"


def _carrier(
    settings: ElectionSettings, spec: Spec, terms: StoredLease, *, name: str
) -> LeaseCarrier:
    if settings.carrier is ElectionCarrier.DATABASE:
        return terms
    from actuators.kubernetes.connection import connect
    from planner.service.election.cluster_lease import ClusterLease

    namespace = settings.lease_namespace or _own_namespace()
    target = spec.cluster if spec.target is TargetKind.KUBERNETES else ClusterTarget()
    return ClusterLease(
        api=connect(target),
        namespace=namespace,
        name=settings.lease_name or f"poolwise-{name}",
    )


def _own_namespace() -> str:
    """The namespace of the pod that this runs in."""
    try:
        return POD_NAMESPACE.read_text().strip()
    except OSError as error:
        raise InputError(
            "POOLWISE_LEADER_ELECTION=kubernetes keeps a Lease in the pod's namespace, and this "
            "runs in no pod: name one by POOLWISE_LEASE_NAMESPACE, or leave the lease in the "
            "database"
        ) from error
