"""The universal writer: a count by the `scale` subresource, bound to the version that was read."""

from dataclasses import dataclass

from kubernetes.client import ApiClient, CustomObjectsApi

from actuators.kubernetes.client import FIELD_MANAGER, Asked, ask

REQUEST_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleTarget:
    """An object with a `scale` subresource; `plural` is the resource, as in `deployments`."""

    group: str
    version: str
    plural: str
    namespace: str
    name: str

    @property
    def label(self) -> str:
        """The object in words for people."""
        return f"{self.plural}/{self.name} in namespace {self.namespace}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A count as it was read: asked for, observed, and the version it belongs to."""

    replicas: int
    observed_replicas: int
    resource_version: str


def read_scale(api: ApiClient, target: ScaleTarget) -> Scale:
    """Read the count. Raises ClusterError when the server refuses or cannot be reached."""
    objects = CustomObjectsApi(api)
    answer = ask(
        lambda: objects.get_namespaced_custom_object_scale(
            target.group,
            target.version,
            target.namespace,
            target.plural,
            target.name,
            _request_timeout=REQUEST_TIMEOUT_S,
        ),
        Asked(doing=f"read the scale of {target.label}", writes=False),
    )
    return _scale(answer)


def write_scale(
    api: ApiClient, target: ScaleTarget, *, read: Scale, replicas: int, dry_run: bool = False
) -> Scale:
    """Set the count if the object is still as `read`; with `dry_run` the server only checks.

    Nothing else is tried when this is refused.

    Raises
    ------
    ClusterError
        Status 409 when the object changed since; any other refusal; or a connection that broke.
    """
    objects = CustomObjectsApi(api)
    body = {
        "metadata": {"resourceVersion": read.resource_version},
        "spec": {"replicas": replicas},
    }
    answer = ask(
        lambda: objects.patch_namespaced_custom_object_scale(
            target.group,
            target.version,
            target.namespace,
            target.plural,
            target.name,
            body,
            field_manager=FIELD_MANAGER,
            dry_run="All" if dry_run else None,
            _content_type="application/merge-patch+json",
            _request_timeout=REQUEST_TIMEOUT_S,
        ),
        Asked(doing=f"scale {target.label} to {replicas}", writes=True),
    )
    return _scale(answer)


def _scale(answer: object) -> Scale:
    """Read an autoscaling/v1 Scale; a count of 0 is left out by servers."""
    return Scale(
        replicas=int(_text(answer, "spec", "replicas", "0")),
        observed_replicas=int(_text(answer, "status", "replicas", "0")),
        resource_version=_text(answer, "metadata", "resourceVersion", ""),
    )


def _text(answer: object, part: str, name: str, absent: str) -> str:
    fields = answer.get(part) if isinstance(answer, dict) else None
    return str(fields.get(name, absent)) if isinstance(fields, dict) else absent
