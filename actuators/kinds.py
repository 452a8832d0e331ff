"""Where each kind of object keeps its counts.

Sources: the API references of Kubernetes, LeaderWorkerSet, NVIDIA Dynamo, Grove, KServe, AIBrix
and the vLLM production stack.
"""

from dataclasses import dataclass

from planner.domain.errors import InputError

PART = "{part}"
"""In a path: the key that the target's part names."""
NAMED_PART = "[{part}]"
"""In a path: the element of a list whose `name` is the target's part."""
REPLICAS = ("spec", "replicas")


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedKind:
    """A kind whose objects hold counts of replicas.

    Parameters
    ----------
    api_version : str
    plural : str
        As in URLs.
    scale : bool
        Counts are written through the object's `scale` subresource.
    path : tuple of str
        Where the count stands; `PART` and `NAMED_PART` stand for the target's part.
    keyed : bool
        Server-side apply merges its lists by name; else a part of one replaces it.
    """

    api_version: str
    plural: str
    scale: bool = True
    path: tuple[str, ...] = REPLICAS
    keyed: bool = True

    @property
    def has_parts(self) -> bool:
        """Whether one object holds several counts."""
        return PART in self.path or NAMED_PART in self.path


_GROVE, _NVIDIA = "grove.io/v1alpha1", "nvidia.com/v1beta1"
_DISAGGREGATED = "disaggregatedset.x-k8s.io/v1"

KINDS: dict[str, CountedKind] = {
    "Deployment": CountedKind(api_version="apps/v1", plural="deployments"),
    "StatefulSet": CountedKind(api_version="apps/v1", plural="statefulsets"),
    "LeaderWorkerSet": CountedKind(
        api_version="leaderworkerset.x-k8s.io/v1", plural="leaderworkersets"
    ),
    "DisaggregatedSetRoleScaler": CountedKind(
        api_version=_DISAGGREGATED, plural="disaggregatedsetrolescalers"
    ),
    "DisaggregatedSet": CountedKind(
        api_version=_DISAGGREGATED,
        plural="disaggregatedsets",
        scale=False,
        path=("spec", "roles", NAMED_PART, "spec", "replicas"),
    ),
    "DynamoGraphDeploymentScalingAdapter": CountedKind(
        api_version="nvidia.com/v1alpha1", plural="dynamographdeploymentscalingadapters"
    ),
    "DynamoGraphDeployment": CountedKind(
        api_version=_NVIDIA,
        plural="dynamographdeployments",
        scale=False,
        path=("spec", "components", NAMED_PART, "replicas"),
    ),
    "PodClique": CountedKind(api_version=_GROVE, plural="podcliques"),
    "PodCliqueScalingGroup": CountedKind(api_version=_GROVE, plural="podcliquescalinggroups"),
    "LLMInferenceService": CountedKind(
        api_version="serving.kserve.io/v1alpha2",
        plural="llminferenceservices",
        scale=False,
        path=("spec", PART, "replicas"),
    ),
    "StormService": CountedKind(
        api_version="orchestration.aibrix.ai/v1alpha1",
        plural="stormservices",
        scale=False,
        path=("spec", "template", "spec", "roles", NAMED_PART, "replicas"),
        keyed=False,
    ),
    "VLLMRuntime": CountedKind(
        api_version="production-stack.vllm.ai/v1alpha1",
        plural="vllmruntimes",
        path=("spec", "deploymentConfig", "replicas"),
    ),
}


def count_path(kind: str, api_version: str, part: str) -> tuple[str, ...]:
    """The path of a count; an element of a list by name is written `[name]`.

    Raises
    ------
    InputError
        When the kind is not known.
    """
    if kind not in KINDS:
        raise InputError(f"kind {kind} is not known; give one of {', '.join(sorted(KINDS))}")
    path = KINDS[kind].path
    if kind == "LLMInferenceService" and part == "decode":
        path = REPLICAS
    elif kind == "DynamoGraphDeployment" and api_version.endswith("/v1alpha1"):
        path = ("spec", "services", PART, "replicas")
    return tuple(key.replace(PART, part) for key in path)
