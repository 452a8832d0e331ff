"""Finds the objects that hold the counts of a spec's pools by their labels."""

from collections.abc import Sequence
from dataclasses import dataclass

from kubernetes.client import ApiClient

from actuators.kinds import KINDS
from actuators.kubernetes.candidates import Candidate, candidates_in
from actuators.kubernetes.client import ClusterError
from actuators.kubernetes.labels import ACCELERATOR, MODEL, ROLE, TP, Said, said
from actuators.kubernetes.resources import entries, get, path_of
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.target import ClusterTarget, CountTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What a selector found.

    Parameters
    ----------
    found : tuple of (CountTarget, str)
        Objects of pools, and what told their role and shape.
    left_out : tuple of str
        Objects that are no workers, kinds that this account may not list; a sentence each.
    problems : tuple of str
        What is ambiguous or incomplete, a sentence each.
    """

    found: tuple[tuple[CountTarget, str], ...]
    left_out: tuple[str, ...]
    problems: tuple[str, ...]


def discover(api: ApiClient, cluster: ClusterTarget, shapes: Sequence[ReplicaShape]) -> Discovery:
    """List objects of all known kinds by the target's selector, and tell pools by their labels.

    Raises
    ------
    ClusterError
        When the cluster cannot be asked.
    """
    counts, left_out = _listed(api, cluster)
    problems: list[str] = []
    by_pool: dict[ReplicaShape, list[tuple[CountTarget, str]]] = {}
    for one in counts:
        told = said(
            one.notes,
            one.template,
            accelerators={s.accelerator for s in shapes},
            models={s.model for s in shapes},
            role=one.role,
            tp=one.tp,
        )
        if told.other:
            left_out.append(f"{one.label} is left out: it is {told.other}, no worker")
            continue
        pool, problem = _pool_of(told, shapes)
        if pool is None:
            problems.append(f"{one.label} matches target.selector, but {problem}")
            continue
        target = CountTarget(
            role=pool.role,
            model=pool.model,
            accelerator=pool.accelerator,
            tp=pool.tp,
            kind=one.kind,
            api_version=KINDS[one.kind].api_version,
            name=one.name,
            part=one.part,
        )
        by_pool.setdefault(pool, []).append((target, ", ".join(told.by)))
    found = [each for several in by_pool.values() for each in several]
    problems += [
        f"{' and '.join(t.label for t, _by in several)} are all of pool {pool.label}: narrow "
        "target.selector, so that each pool has one"
        for pool, several in by_pool.items()
        if len(several) > 1
    ]
    if not problems:
        problems += [
            f"pool {shape.label}: target.selector {cluster.selector} matches no object of it in "
            f"namespace {cluster.namespace}; give its object that label and {ROLE}={shape.role}"
            for shape in shapes
            if shape not in by_pool
        ]
    return Discovery(found=tuple(found), left_out=tuple(left_out), problems=tuple(problems))


def _pool_of(told: Said, shapes: Sequence[ReplicaShape]) -> tuple[ReplicaShape | None, str]:
    """The one pool that it can be of, or what is missing or wrong."""
    if told.wrong:
        return None, told.wrong
    if told.role is None:
        return None, f"lacks the label {ROLE}: make it {', '.join(Role)}, or narrow the selector"
    fitting = [
        s
        for s in shapes
        if s.role is told.role
        and told.accelerator in (None, s.accelerator)
        and told.tp in (None, s.tp)
        and told.model in (None, s.model)
    ]
    if len(fitting) == 1:
        return fitting[0], ""
    if not fitting:
        known = ", ".join(s.label for s in shapes)
        read = ":".join(
            str(x)
            for x in (told.role, told.accelerator, told.tp and f"tp{told.tp}", told.model)
            if x is not None
        )
        return None, (
            f"is {read} ({', '.join(told.by)}), and the spec has only {known}: correct the labels, "
            "add the pool, or narrow the selector"
        )
    differing: dict[str, set[str] | set[int]] = {
        ACCELERATOR: {s.accelerator for s in fitting},
        TP: {s.tp for s in fitting},
        MODEL: {s.model for s in fitting},
    }
    missing = [label for label, values in differing.items() if len(values) > 1]
    may_be = " or ".join(s.label for s in fitting)
    if not missing:
        return None, f"may be {may_be}, which labels do not tell apart: use target.objects"
    return None, f"may be {may_be}: it lacks the label {' and '.join(missing)}"


def _listed(api: ApiClient, cluster: ClusterTarget) -> tuple[list[Candidate], list[str]]:
    """All counts of objects that the selector matches, and what was not looked at."""
    counts: dict[tuple[str, str, str], Candidate] = {}
    left_out: list[str] = []
    for kind, known in KINDS.items():
        path = path_of(known.api_version, cluster.namespace, known.plural)
        doing = f"list {known.plural} in {cluster.namespace} by target.selector"
        try:
            listed = entries(get(api, path, doing, labelSelector=cluster.selector), "items")
        except ClusterError as error:
            if error.status == 403:
                left_out.append(
                    f"{known.plural} were not looked at: this account may not list them"
                )
            elif error.status != 404:  # which says that its CRD is not installed
                raise
            continue
        for document in listed:
            for one in candidates_in(kind, document):
                counts[one.kind, one.name, one.part] = one  # a parent, which says more, comes later
    return list(counts.values()), left_out
