"""What would be written to a cluster: a Scale, or the field of the object, for each target."""

from collections.abc import Sequence

import yaml

from actuators.dry_run.counts import TargetCount
from actuators.kinds import KINDS, count_path
from planner.domain.target import CountTarget

Json = dict[str, object]


def render_manifests(counts: Sequence[TargetCount]) -> str:
    """One YAML document for each target whose count changes, under the request it belongs to."""
    documents = [
        f"# {_request(c.target)}: {c.before} -> {c.planned}\n{_warning(c.target)}"
        + yaml.safe_dump(manifest(c.target, c.planned), sort_keys=False)
        for c in counts
        if c.before != c.planned
    ]
    return "---\n".join(documents)


def manifest(target: CountTarget, replicas: int) -> Json:
    """The object that is written: a Scale where the kind has one, else nothing but the count."""
    metadata: Json = {"name": target.name}
    if target.namespace:
        metadata["namespace"] = target.namespace
    if KINDS[target.kind].scale:
        head: Json = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata}
        return {**head, "spec": {"replicas": replicas}}
    value: object = replicas
    for key in reversed(count_path(target.kind, target.api_version, target.part)):
        if key.startswith("["):
            own = value if isinstance(value, dict) else {}
            value = [{"name": target.part, **own}]
        else:
            value = {key: value}
    fields = value if isinstance(value, dict) else {}
    return {"apiVersion": target.api_version, "kind": target.kind, "metadata": metadata, **fields}


def _request(target: CountTarget) -> str:
    kind = KINDS[target.kind]
    place = f"namespaces/{target.namespace or 'default'}/{kind.plural}/{target.name}"
    return f"PATCH /apis/{target.api_version}/{place}" + ("/scale" if kind.scale else "")


def _warning(target: CountTarget) -> str:
    if KINDS[target.kind].keyed:
        return ""
    return "# To look at only: applied as it stands it would replace the whole list of roles.\n"
