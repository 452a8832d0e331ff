"""The counts that an object of a known kind holds, with what it says of each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from actuators.kubernetes.labels import ACCELERATOR, MODEL, TP, notes_of, owner_of
from actuators.kubernetes.ownership import MADE_TO_BE_SCALED
from actuators.kubernetes.resources import Json, at, entries, number, text
from planner.domain.fleet import Role

_DYNAMO_GRAPH = "nvidia.com/dynamo-graph-deployment-name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A count that may be a pool's.

    Parameters
    ----------
    notes : dict
        Labels and annotations that speak of it.
    template : Json
        Of its pods; empty where the object has none.
    role, tp
        What a field of the object says; empty and None: nothing.
    """

    kind: str
    name: str
    part: str = ""
    notes: dict[str, str]
    template: Json
    role: str = ""
    tp: int | None = None

    @property
    def label(self) -> str:
        """As people write it."""
        return f"{self.kind} {self.name}" + (f" ({self.part})" if self.part else "")


def candidates_in(kind: str, document: Json) -> tuple[Candidate, ...]:
    """The counts of an object; none where its owner sets them, which is the one to find."""
    if _is_a_child(kind, document):
        return ()
    return tuple(_READERS.get(kind, _sole)(kind, document))


def _is_a_child(kind: str, document: Json) -> bool:
    """Whether its count is set by the object that made it, which is the one to find."""
    owner = owner_of(document)
    if kind == "PodClique" and owner == "PodCliqueScalingGroup":
        return True
    if kind.startswith("PodClique") and _DYNAMO_GRAPH in notes_of(document):
        return True
    return bool(owner) and kind not in MADE_TO_BE_SCALED


def _sole(kind: str, document: Json) -> Iterator[Candidate]:
    """The count of an object that has one."""
    template = next(
        (
            found
            for path in (
                ("spec", "template"),
                ("spec", "leaderWorkerTemplate", "leaderTemplate"),
                ("spec", "leaderWorkerTemplate", "workerTemplate"),
            )
            if isinstance(found := at(document, *path), dict)
        ),
        {},
    )
    if kind == "PodClique":
        template = {"spec": at(document, "spec", "podSpec")}
    role = text(document, "spec", "roleName") if kind == "PodClique" else ""
    yield Candidate(
        kind=kind,
        name=text(document, "metadata", "name"),
        notes=notes_of(document),
        template=template,
        role=role if role in set(Role) else "",
        tp=number(document, "spec", "vllmConfig", "tensorParallelSize") or None,
    )


def _of_adapter(kind: str, document: Json) -> Iterator[Candidate]:
    """The count of one component or role, which its label names."""
    notes = notes_of(document)
    role = notes.get("disaggregatedset.x-k8s.io/role") or notes.get("nvidia.com/dynamo-component")
    role = role if role in set(Role) else ""
    for one in _sole(kind, document):
        yield replace(one, role=role or "")


def _of_graph(kind: str, document: Json) -> Iterator[Candidate]:
    """Components of a Dynamo graph; those with an adapter are scaled through that."""
    name = text(document, "metadata", "name")
    listed = entries(document, "spec", "components")
    roles = {text(one, "type") for one in listed}
    for component in listed:
        role, part = text(component, "type"), text(component, "name")
        if role == "worker":  # prompt and answer, unless others do the one
            role = "" if roles & {"prefill", "decode"} else "aggregated"
        adapted = "scalingAdapter" in component
        template = at(component, "podTemplate")
        yield Candidate(
            kind="DynamoGraphDeploymentScalingAdapter" if adapted else kind,
            name=f"{name}-{part.lower()}" if adapted else name,
            part="" if adapted else part,
            notes=_of_parts(document),
            template=template if isinstance(template, dict) else {},
            role=role,
        )


def _of_disaggregated_set(kind: str, document: Json) -> Iterator[Candidate]:
    """Roles of a DisaggregatedSet; those scaled from outside have a scaler."""
    name = text(document, "metadata", "name")
    for role in entries(document, "spec", "roles"):
        part = text(role, "name")
        outside = text(role, "scaling", "mode") == "External"
        for one in _sole(kind, {**role, "metadata": {**_plain(role, "metadata"), "name": name}}):
            yield replace(
                one,
                kind="DisaggregatedSetRoleScaler" if outside else kind,
                name=f"{name}-{part}" if outside else name,
                part="" if outside else part,
                notes={**_of_parts(document), **one.notes},
                role=part if part in set(Role) else "",
            )


def _of_service(kind: str, document: Json) -> Iterator[Candidate]:
    """KServe's two parts; without a prefill part the other one does both."""
    spec = _plain(document, "spec")
    parts = {"decode": spec} | ({"prefill": _plain(spec, "prefill")} if "prefill" in spec else {})
    for part, place in parts.items():
        yield Candidate(
            kind=kind,
            name=text(document, "metadata", "name"),
            part=part,
            notes=_of_parts(document) | notes_of({"metadata": place}),
            template={"spec": at(place, "template")},
            role=part if len(parts) > 1 else "aggregated",
            tp=number(place, "parallelism", "tensor") or None,
        )


def _of_storm(kind: str, document: Json) -> Iterator[Candidate]:
    for role in entries(document, "spec", "template", "spec", "roles"):
        part = text(role, "name")
        yield Candidate(
            kind=kind,
            name=text(document, "metadata", "name"),
            part=part,
            notes=_of_parts(document),
            template=_plain(role, "template"),
            role=part if part in set(Role) else "",
        )


def _of_parts(document: Json) -> dict[str, str]:
    """What holds for all parts of an object: everything but a role."""
    return {key: v for key, v in notes_of(document).items() if key in (ACCELERATOR, TP, MODEL)}


def _plain(document: Json, key: str) -> Json:
    found = at(document, key)
    return found if isinstance(found, dict) else {}


_READERS: dict[str, Callable[[str, Json], Iterator[Candidate]]] = {
    "DynamoGraphDeployment": _of_graph,
    "DynamoGraphDeploymentScalingAdapter": _of_adapter,
    "DisaggregatedSet": _of_disaggregated_set,
    "DisaggregatedSetRoleScaler": _of_adapter,
    "LLMInferenceService": _of_service,
    "StormService": _of_storm,
}
