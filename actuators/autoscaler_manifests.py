"""Manifests that make HPA or KEDA follow the exported counts.

Sources: the references of HorizontalPodAutoscaler v2, KEDA's scalers, prometheus-adapter.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from actuators.kinds import KINDS
from actuators.metrics import LABELS, NAME, label_values
from planner.domain.errors import InputError
from planner.domain.fleet import ReplicaShape
from planner.domain.spec import PoolBounds
from planner.domain.target import CountTarget

Json = dict[str, object]
STABILIZATION_S = 300
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
"""https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """A target that an autoscaler may move between two counts."""

    deployment: str
    target: CountTarget
    labels: dict[str, str]
    min_replicas: int
    max_replicas: int

    def __post_init__(self) -> None:
        if not KINDS[self.target.kind].scale:
            raise InputError(
                f"{self.target.label} has no scale subresource, so no autoscaler can move it: "
                "target an object that has one"
            )
        if self.max_replicas < max(1, self.min_replicas):
            raise InputError(f"{self.target.label}: max_replicas must be at least min_replicas, 1")

    @property
    def name(self) -> str:
        """Of the autoscaler's object."""
        return f"poolwise-{self.target.name}"

    @property
    def query(self) -> str:
        """PromQL for the desired count. No data when the counts are not known, never zero."""
        # Quoted as JSON is, which PromQL reads too.
        pairs = ",".join(f"{key}={json.dumps(v)}" for key, v in sorted(self.labels.items()))
        return f"max({NAME}{{{pairs}}})"


def scaled_pools(
    deployment: str, pools: Sequence[PoolBounds], objects: Sequence[CountTarget]
) -> list[Scaled]:
    """Every pool with the object that an autoscaler moves for it.

    Raises
    ------
    InputError
        When a pool has no upper bound, or not exactly one object, or one named as another's.
    """
    found: list[Scaled] = []
    for pool in pools:
        shape, most = pool.shape, pool.max_replicas
        matching = [target for target in objects if target.is_for(shape)]
        if len(matching) != 1:
            names = ", ".join(target.label for target in matching) or "none"
            raise InputError(
                f"pool {shape.label} of {shape.model} needs exactly one object that holds its "
                f"count, found {names}: say which under target.objects"
            )
        if most is None:
            raise InputError(
                f"pool {shape.label} of {shape.model} needs max_replicas, which bounds its "
                "autoscaler"
            )
        (target,) = matching
        one = Scaled(
            deployment=deployment,
            target=target,
            labels=labels_of(deployment, shape),
            min_replicas=pool.min_replicas,
            max_replicas=most,
        )
        if any((o.target.namespace, o.name) == (target.namespace, one.name) for o in found):
            raise InputError(
                f"{one.name} would be the autoscaler of several pools: give each pool an object "
                "of its own, with a name of its own"
            )
        found.append(one)
    return found


def labels_of(deployment: str, shape: ReplicaShape) -> dict[str, str]:
    """Labels of the series that holds a pool's count."""
    return dict(zip(LABELS, label_values(deployment, shape), strict=True))


def hpa(scaled: Scaled) -> Json:
    """An HPA v2. Without tolerance 0 it would ignore 10 -> 11 (its default is 10 %).

    Raises
    ------
    InputError
        When a name cannot be selected by: an HPA takes label values of Kubernetes only.
    """
    for key, value in scaled.labels.items():
        if not _LABEL_VALUE.fullmatch(value):
            raise InputError(
                f"an HPA cannot select the series of {key} {value!r}, which is no label value of "
                "Kubernetes: use `poolwise render keda`, or another name"
            )
    metric: Json = {"name": NAME, "selector": {"matchLabels": scaled.labels}}
    external: Json = {"metric": metric, "target": {"type": "AverageValue", "averageValue": "1"}}
    return _object(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        scaled,
        {
            "scaleTargetRef": _reference(scaled.target),
            "minReplicas": max(1, scaled.min_replicas),
            "maxReplicas": scaled.max_replicas,
            "metrics": [{"type": "External", "external": external}],
            "behavior": _behavior(),
        },
    )


def keda(scaled: Scaled, *, prometheus: str) -> Json:
    """A ScaledObject that asks a Prometheus server."""
    metadata: Json = {
        "serverAddress": prometheus,
        "query": scaled.query,
        "threshold": "1",
        "ignoreNullValues": "false",
    }
    return _scaled_object(scaled, {"type": "prometheus", "metadata": metadata})


def keda_push(scaled: Scaled, *, scaler: str) -> Json:
    """A ScaledObject that asks Poolwise's own external scaler (`host:port`)."""
    metadata: Json = {"scalerAddress": scaler, **scaled.labels}
    return _scaled_object(scaled, {"type": "external-push", "metadata": metadata})


def adapter_rule() -> Json:
    """A rule for prometheus-adapter's `rules.external`, which serves the metric to HPAs."""
    return {
        "externalRules": [
            {
                "seriesQuery": f'{{__name__="{NAME}"}}',
                "resources": {"namespaced": False},
                "name": {"matches": NAME},
                "metricsQuery": "max(<<.Series>>{<<.LabelMatchers>>})",
            }
        ]
    }


def _scaled_object(scaled: Scaled, trigger: Json) -> Json:
    behavior: Json = {"horizontalPodAutoscalerConfig": {"behavior": _behavior()}}
    return _object(
        "keda.sh/v1alpha1",
        "ScaledObject",
        scaled,
        {
            "scaleTargetRef": _reference(scaled.target),
            "minReplicaCount": max(1, scaled.min_replicas),
            "maxReplicaCount": scaled.max_replicas,
            "advanced": behavior,
            "triggers": [{**trigger, "metricType": "AverageValue"}],
        },
    )


def _object(api_version: str, kind: str, scaled: Scaled, spec: Json) -> Json:
    metadata: Json = {"name": scaled.name}
    if scaled.target.namespace:
        metadata["namespace"] = scaled.target.namespace
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


def _reference(target: CountTarget) -> Json:
    return {"apiVersion": target.api_version, "kind": target.kind, "name": target.name}


def _behavior() -> Json:
    return {
        "scaleUp": {"stabilizationWindowSeconds": 0, "tolerance": "0"},
        "scaleDown": {"stabilizationWindowSeconds": STABILIZATION_S, "tolerance": "0"},
    }
