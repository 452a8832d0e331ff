"""What an HPA v2 decides by an external metric, as Kubernetes' own controller computes it.

Source: `GetExternalPerPodMetricReplicas` of pkg/controller/podautoscaler/replica_calculator.go.
"""

import math
from typing import Any

DEFAULT_TOLERANCE = 0.1
"""Of kube-controller-manager, where the manifest does not say."""


def wanted_replicas(hpa: dict[str, Any], current: int, value: float | None) -> int:
    """Replicas that it asks for; None: the metric has no value, so it holds."""
    spec = hpa["spec"]
    if value is None:
        return current
    (metric,) = spec["metrics"]
    target = metric["external"]["target"]
    assert target["type"] == "AverageValue"
    average = float(target["averageValue"])
    ratio = value / (average * current)
    down, up = (
        float(spec.get("behavior", {}).get(way, {}).get("tolerance", DEFAULT_TOLERANCE))
        for way in ("scaleDown", "scaleUp")
    )
    wanted = current if 1 - down <= ratio <= 1 + up else math.ceil(value / average)
    return min(max(wanted, spec["minReplicas"]), spec["maxReplicas"])
