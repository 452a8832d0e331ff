"""Whose pod it is: the chain of controllers above it, up to the object that holds the count.

Labels alone do not tell: anybody may give a pod those of somebody else. A chain that cannot be
followed to its end (a kind that this account may not read, an owner that is gone) proves nothing;
such a pod counts by its labels, and that is told.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from actuators.kubernetes.client import ClusterError
from actuators.kubernetes.counts import Count, Counter
from actuators.kubernetes.resources import Json, entries, get, path_of, text

Parents = dict[str, Json | None]
"""By uid: who controls an object; None: nobody does."""
_LONGEST = 10
"""Owners above a pod; no operator has half as many."""
_FOR_OTHERS = ("DynamoGraphDeploymentScalingAdapter", "DisaggregatedSetRoleScaler")
"""Their pods belong to the object that they were made for."""
_BETWEEN: dict[str, frozenset[str]] = {
    "Deployment": frozenset({"ReplicaSet"}),
    "StatefulSet": frozenset(),
    "LeaderWorkerSet": frozenset({"StatefulSet", "Pod"}),
    "PodClique": frozenset(),
    "PodCliqueScalingGroup": frozenset({"PodClique"}),
    "VLLMRuntime": frozenset({"Deployment", "ReplicaSet"}),
}
"""Kinds that may stand between a pod and the object, where that is known for sure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kin:
    """Pods with the labels of a count, by whose they are.

    Parameters
    ----------
    own : tuple of pods
        Those of the object, and those of which it cannot be told.
    strangers : tuple of str
        Names of pods that are somebody else's, or nobody's.
    untold : tuple of str
        Why it cannot be told of some, one clause each.
    """

    own: tuple[Json, ...]
    strangers: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()


class _UntoldError(Exception):
    """The chain cannot be followed; the message says why."""


def kin_of(counter: Counter, count: Count, pods: Iterable[Json]) -> Kin:
    """Part pods with the right labels by the controllers above them.

    Raises
    ------
    ClusterError
        When an owner cannot be read, for another reason than 403 and 404.
    """
    pods = list(pods)
    if not pods:
        return Kin(own=())
    among = {text(pod, "metadata", "uid"): owner_reference(pod) for pod in pods}
    own, strangers, untold = [], [], []
    root, owners = _root(counter, count), _Owners(counter, among)
    for pod in pods:
        try:
            is_own = _leads_to(root, owners, owner_reference(pod))
        except _UntoldError as error:
            untold.append(str(error))
            is_own = True
        if is_own:
            own.append(pod)
        else:
            strangers.append(text(pod, "metadata", "name"))
    return Kin(own=tuple(own), strangers=tuple(strangers), untold=tuple(dict.fromkeys(untold)))


def owner_reference(document: Json) -> Json | None:
    """Who controls an object; of owners none of which controls it the first, None without any."""
    owners = entries(document, "metadata", "ownerReferences")
    return next((one for one in owners if one.get("controller")), owners[0] if owners else None)


def _root(counter: Counter, count: Count) -> str:
    """The uid that the chains of its pods end at."""
    if counter.target.kind not in _FOR_OTHERS or not count.uid:
        return count.uid
    if counter.parents.get(count.uid) is None:
        counter.parents[count.uid] = owner_reference(counter.object())
    owner = counter.parents[count.uid]
    return count.uid if owner is None else text(owner, "uid")


def _leads_to(root: str, owners: "_Owners", owner: Json | None) -> bool:
    """Whether a chain ends at the root; one that does not by what is known is read anew."""
    return _follows(root, owners, owner, anew=False) or _follows(root, owners, owner, anew=True)


def _follows(root: str, owners: "_Owners", owner: Json | None, *, anew: bool) -> bool:
    between = _BETWEEN.get(owners.counter.target.kind)
    for _ in range(_LONGEST):
        if owner is None:
            return False
        if not root or text(owner, "uid") == root:
            return True
        if between is not None and text(owner, "kind") not in between:
            return False
        owner = owners.above(owner, anew=anew)
    raise _UntoldError("its owners own each other in a circle")


@dataclass(slots=True)
class _Owners:
    """Who controls whom, in one look at the pods of a count.

    What an earlier look found is kept with the counter. An owner's own owner changes where somebody
    deletes it with `--cascade=orphan` and makes it again under its name: what is of the old one is
    the new one's then.

    Parameters
    ----------
    among : Parents
        Of the pods themselves.
    """

    counter: Counter
    among: Parents
    _read: set[str] = field(default_factory=set, init=False)
    _untold: dict[str, _UntoldError] = field(default_factory=dict, init=False)

    def above(self, owner: Json, *, anew: bool) -> Json | None:
        """Who controls an owner, read at most once in a look. Raises _UntoldError, ClusterError."""
        uid, parents = text(owner, "uid"), self.counter.parents
        if uid in self.among:
            return self.among[uid]
        if uid in parents and (uid in self._read or not anew):
            return parents[uid]
        if uid in self._untold:
            raise self._untold[uid]
        try:
            parents[uid] = owner_reference(_read(self.counter, owner))
        except _UntoldError as error:
            self._untold[uid] = error
            parents.pop(uid, None)
            raise
        self._read.add(uid)
        return parents[uid]


def _read(counter: Counter, owner: Json) -> Json:
    """The object that a reference names."""
    uid, kind, name = (text(owner, key) for key in ("uid", "kind", "name"))
    version, plural = text(owner, "apiVersion"), kind.lower() + "s"
    path = path_of(version, counter.namespace, plural, name)
    try:
        found = get(counter.api, path, f"read {kind} {name}, which owns pods")
    except ClusterError as error:
        if error.status == 403:
            group = version.rpartition("/")[0]
            raise _UntoldError(
                f"this account may not get {plural}{f'.{group}' if group else ''}: grant it"
            ) from error
        if error.status == 404:
            raise _UntoldError(f"{kind} {name}, which owns them, cannot be found") from error
        raise
    if text(found, "metadata", "uid") != uid:
        raise _UntoldError(f"{kind} {name}, which owned them, is another one by now")
    return found
