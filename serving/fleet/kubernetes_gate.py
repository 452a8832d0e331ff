"""The gate before a rendered deployment: one Deployment with its Service, over all cells' routers.

It follows no endpoints file, so that it lets everybody in at the rate of their keys, counts and
records, and estimates nothing: without known workers there is no load to estimate from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from serving.fleet.manifest_parts import Json, probe

GATE_PORT = 8766
USER = 10001
"""Of Poolwise's image (`deploy/Containerfile`)."""
FORGOTTEN_AFTER_S = 5
"""An ending pod still gets requests until all nodes know that it ends."""
CLOSES_AFTER_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class GateDescription:
    """A gate that is to be rendered.

    Parameters
    ----------
    image : str
        Poolwise's own.
    spec_config : str
        ConfigMap with `spec.yaml` and the files that it names.
    keys_secret : str
        Secret with `gate-keys.json`, as `poolwise gate key add` writes it.
    model : str
        Which of the spec's models.
    drain_s : int
        Answers under way get so long to end, seconds.
    """

    image: str
    spec_config: str
    keys_secret: str
    model: str
    drain_s: int = 120


def gate_manifests(name: str, asked: GateDescription, routers: Sequence[str]) -> list[Json]:
    """A Deployment and its Service.

    Parameters
    ----------
    name : str
        Prefix of the deployment's objects.
    routers : sequence of str
        Base URLs, one a cell.
    """
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/component": "gate"}
    metadata = {"name": f"{name}-gate", "labels": labels}
    pod: Json = {
        "terminationGracePeriodSeconds": FORGOTTEN_AFTER_S + asked.drain_s + CLOSES_AFTER_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(asked, routers)],
        "volumes": [
            {"name": "spec", "configMap": {"name": asked.spec_config}},
            # Readable by the pod's group alone.
            {"name": "keys", "secret": {"secretName": asked.keys_secret, "defaultMode": 0o440}},
            {"name": "state", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    deployment: Json = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            # Rate limits and the view of load are each gate's own.
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
            },
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    service: Json = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "selector": labels,
            "ports": [{"name": "http", "port": GATE_PORT, "targetPort": "http"}],
        },
    }
    return [deployment, service]


def _container(asked: GateDescription, routers: Sequence[str]) -> Json:
    found = [part for url in routers for part in ("--router", url)]
    return {
        "name": "gate",
        "image": asked.image,
        "args": [
            *("gate", "run", "--spec", "/etc/poolwise/spec.yaml", "--model", asked.model),
            *found,
            *("--keys", "/etc/poolwise-keys/gate-keys.json"),
            *("--host", "0.0.0.0", "--port", str(GATE_PORT)),  # noqa: S104  inside the pod
            *("--drain-s", str(asked.drain_s)),
        ],
        "env": [{"name": "POOLWISE_STATE_DIR", "value": "/var/lib/poolwise"}],
        "ports": [{"name": "http", "containerPort": GATE_PORT}],
        "startupProbe": probe("/healthz", "http", period_s=2, failures=60),
        "readinessProbe": probe("/readyz", "http", period_s=5, failures=2),
        "livenessProbe": probe("/healthz", "http", period_s=10, failures=3),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(FORGOTTEN_AFTER_S)]}}},
        "resources": {
            "requests": {"cpu": "1", "memory": "512Mi"},
            "limits": {"memory": "1Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "spec", "mountPath": "/etc/poolwise", "readOnly": True},
            {"name": "keys", "mountPath": "/etc/poolwise-keys", "readOnly": True},
            {"name": "state", "mountPath": "/var/lib/poolwise"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  in the pod
        ],
    }
