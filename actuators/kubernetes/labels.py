"""What an object in a cluster says of the pool that it is: role, accelerator, degree, model.

Our own labels or annotations come first, then those that llm-d, Kubernetes and the operators use,
then the pod template: where it may be placed and what its engine is told.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from actuators.kubernetes.resources import Json, at, entries, text
from planner.domain.fleet import Role
from planner.domain.hardware import closest

ROLE, ACCELERATOR, TP, MODEL = (
    f"poolwise.io/{what}" for what in ("role", "accelerator", "tp", "model")
)
_LLM_D = "llm-d.ai/role"
_COMPONENT = "app.kubernetes.io/component"
_ROLES = {role.value: role for role in Role} | {
    "both": Role.AGGREGATED,  # llm-d and KServe
    "prefill-decode": Role.AGGREGATED,  # llm-d
}
_PLACES = ("nvidia.com/gpu.product", "cloud.google.com/gke-accelerator")
_FLAGS = re.compile(r"(?<!\S)(?:--tensor-parallel-size|-tp)[= ](\d+)")
_SERVED = re.compile(r"--served-model-name[= ](\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What an object says, and where that stands.

    Parameters
    ----------
    role, accelerator, tp, model
        None: it does not say.
    by : tuple of str
        What told it, as in `role by llm-d.ai/role`.
    other : str
        What it is instead of a worker; empty: it may be one.
    wrong : str
        What of it cannot be; empty: nothing.
    """

    role: Role | None = None
    accelerator: str | None = None
    tp: int | None = None
    model: str | None = None
    by: tuple[str, ...] = ()
    other: str = ""
    wrong: str = ""


def said(
    notes: Mapping[str, str],
    template: Json,
    *,
    accelerators: Iterable[str],
    models: Iterable[str],
    role: str = "",
    tp: int | None = None,
) -> Said:
    """Read what is said.

    Parameters
    ----------
    notes : mapping
        Labels and annotations of the object.
    template : Json
        Its pods' template, empty where there is none.
    accelerators, models : iterable of str
        Those that the spec knows.
    role, tp
        What its kind says by a field of its own.
    """
    inner = notes_of(template)
    ours = {**inner, **notes}
    try:
        told, role_by, other = _role(ours, role)
        if other:
            return Said(other=other)
        place, place_by = _accelerator(ours, template, list(accelerators))
        degree, degree_by = _degree(ours, template, tp)
    except ValueError as error:
        return Said(wrong=str(error))
    served = _SERVED.search(_arguments(template))
    model = ours.get(MODEL) or (served[1] if served and served[1] in set(models) else None)
    by = (("role", role_by), ("accelerator", place_by), ("tp", degree_by))
    return Said(
        role=told,
        accelerator=place,
        tp=degree,
        model=model,
        by=tuple(f"{what} by {how}" for what, how in by if how),
    )


def notes_of(document: Json) -> dict[str, str]:
    """Labels and annotations of an object or a template; labels come first."""
    found: dict[str, str] = {}
    for key in ("annotations", "labels"):
        notes = at(document, "metadata", key)
        if isinstance(notes, dict):
            found |= {str(k): str(v) for k, v in notes.items()}
    return found


def _role(notes: Mapping[str, str], own: str) -> tuple[Role | None, str, str]:
    """The role, what said so, and what it is instead of a worker."""
    for key in (ROLE, _LLM_D):
        if key in notes:
            if notes[key] not in _ROLES:
                raise ValueError(
                    f"its label {key} is {notes[key]}, which is no role: make it {', '.join(Role)}"
                )
            return _ROLES[notes[key]], key, ""
    if own:
        return (_ROLES.get(own), "its own field", "" if own in _ROLES else own)
    component = notes.get(_COMPONENT, "")
    if component in _ROLES:
        return _ROLES[component], _COMPONENT, ""
    return None, "", component


def _accelerator(
    notes: Mapping[str, str], template: Json, known: list[str]
) -> tuple[str | None, str]:
    if ACCELERATOR in notes:
        if notes[ACCELERATOR] not in known:
            raise ValueError(
                f"its label {ACCELERATOR} is {notes[ACCELERATOR]}, which is no accelerator of the "
                f"spec: make it {', '.join(sorted(known))}"
            )
        return notes[ACCELERATOR], ACCELERATOR
    for key, product in _placed(template):
        found = closest(product, known)
        if found is None:
            raise ValueError(
                f"it is placed on {product}, which is no accelerator of the spec: label it "
                f"{ACCELERATOR}={' or '.join(sorted(known))} if it is one by another name"
            )
        return found, key
    return None, ""


def _placed(template: Json) -> Iterator[tuple[str, str]]:
    """On which accelerator its pods have to be placed, where that is one."""
    selector = at(template, "spec", "nodeSelector")
    for key in _PLACES:
        if isinstance(selector, dict) and key in selector:
            yield key, str(selector[key])
    required = at(
        template,
        "spec",
        "affinity",
        "nodeAffinity",
        "requiredDuringSchedulingIgnoredDuringExecution",
    )
    for term in entries(required, "nodeSelectorTerms"):
        for rule in entries(term, "matchExpressions"):
            values = rule.get("values")
            if rule.get("key") in _PLACES and isinstance(values, list) and len(values) == 1:
                yield str(rule["key"]), str(values[0])


def _degree(notes: Mapping[str, str], template: Json, own: int | None) -> tuple[int | None, str]:
    if TP in notes:
        if not notes[TP].isdecimal():
            raise ValueError(f"its label {TP} is {notes[TP]}: make it a whole number from 1")
        return int(notes[TP]), TP
    if own is not None:
        return own, "its own field"
    flag = _FLAGS.search(_arguments(template))
    return (int(flag[1]), "its engine's arguments") if flag else (None, "")


def _arguments(template: Json) -> str:
    """What its containers are started with, in one line."""
    words: list[str] = []
    for container in entries(template, "spec", "containers"):
        for key in ("command", "args"):
            found = at(container, key)
            words += [str(word) for word in found] if isinstance(found, list) else []
    return " ".join(words)


def owner_of(document: Json) -> str:
    """The kind of the object that controls this one; empty: nobody does."""
    for one in entries(document, "metadata", "ownerReferences"):
        if one.get("controller"):
            return text(one, "kind")
    return ""
