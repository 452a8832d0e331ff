"""Who may do what: bearer tokens, and rules given with a token or written as RBAC objects."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.kubernetes import errors
from tests.kubernetes.storage import Store

Object = dict[str, Any]
_RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of a role: `*` stands for all, `resources` may name `deployments/scale`.

    `namespaces` empty means in all of them and for cluster-wide kinds.
    """

    verbs: tuple[str, ...]
    groups: tuple[str, ...] = ("*",)
    resources: tuple[str, ...] = ("*",)
    names: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()

    def allows(self, asked: "Attributes") -> bool:
        resource = asked.resource + (f"/{asked.subresource}" if asked.subresource else "")
        return (
            _has(self.verbs, asked.verb)
            and _has(self.groups, asked.group)
            and (_has(self.resources, resource) or f"*/{asked.subresource}" in self.resources)
            and (not self.names or asked.name in self.names)
            and (not self.namespaces or asked.namespace in self.namespaces)
        )


def _has(allowed: tuple[str, ...], asked: str) -> bool:
    return "*" in allowed or asked in allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What is asked for."""

    verb: str
    group: str
    version: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who asks; `rules` come on top of what RBAC objects grant."""

    name: str
    groups: tuple[str, ...] = ("system:authenticated",)
    rules: tuple[Rule, ...] = ()


ADMIN = User(name="kubernetes-admin", groups=("system:masters", "system:authenticated"))
ANONYMOUS = User(name="system:anonymous", groups=("system:unauthenticated",))


def service_account(namespace: str, name: str, rules: tuple[Rule, ...] = ()) -> User:
    """The user that a service account is."""
    return User(
        name=f"system:serviceaccount:{namespace}:{name}",
        groups=(
            "system:serviceaccounts",
            f"system:serviceaccounts:{namespace}",
            "system:authenticated",
        ),
        rules=rules,
    )


class Access:
    """The tokens that are valid, and the decision on each request."""

    def __init__(self, store: Store) -> None:
        self.tokens: dict[str, User] = {}
        self._store = store

    def user_of(self, authorization: str) -> User:
        """Who sent this header. Raises the 401 for a token that is not, or no longer, valid."""
        if not authorization:
            return ANONYMOUS
        user = self.tokens.get(authorization.removeprefix("Bearer "))
        if user is None:
            raise errors.unauthorized()
        return user

    def check(self, user: User, asked: Attributes) -> None:
        """Raise the 403 when the user may not."""
        if not self.allowed(user, asked):
            raise errors.forbidden(asked.resource, asked.group, asked.name, refusal(user, asked))

    def allowed(self, user: User, asked: Attributes) -> bool:
        if "system:masters" in user.groups:
            return True
        return any(rule.allows(asked) for rule in self.rules_of(user))

    def rules_of(self, user: User) -> Iterator[Rule]:
        """All rules that hold for a user."""
        yield from user.rules
        if "system:authenticated" in user.groups:
            yield Rule(
                verbs=("create",),
                groups=("authorization.k8s.io", "authentication.k8s.io"),
                resources=(
                    "selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews",
                ),
            )  # fmt: skip
        for binding in self._store.all((_RBAC, "clusterrolebindings")):
            if _binds(binding, user):
                yield from self._granted(binding, "")
        for binding in self._store.all((_RBAC, "rolebindings")):
            if _binds(binding, user):
                yield from self._granted(binding, binding["metadata"]["namespace"])

    def _granted(self, binding: Object, namespace: str) -> Iterator[Rule]:
        reference = binding["roleRef"]
        if reference["kind"] == "ClusterRole":
            role = self._store.get((_RBAC, "clusterroles"), "", reference["name"])
        else:
            role = self._store.get((_RBAC, "roles"), namespace, reference["name"])
        for rule in (role or {}).get("rules") or ():
            if "resources" in rule:
                yield Rule(
                    verbs=tuple(rule["verbs"]),
                    groups=tuple(rule.get("apiGroups", ())),
                    resources=tuple(rule["resources"]),
                    names=tuple(rule.get("resourceNames", ())),
                    namespaces=(namespace,) if namespace else (),
                )


def _binds(binding: Object, user: User) -> bool:
    for subject in binding.get("subjects") or ():
        if subject["kind"] == "Group" and subject["name"] in user.groups:
            return True
        if subject["kind"] == "User" and subject["name"] == user.name:
            return True
        if subject["kind"] == "ServiceAccount":
            account = f"system:serviceaccount:{subject['namespace']}:{subject['name']}"
            if account == user.name:
                return True
    return False


def refusal(user: User, asked: Attributes) -> str:
    """Why a request is refused, in the words of the RBAC authorizer."""
    resource = asked.resource + (f"/{asked.subresource}" if asked.subresource else "")
    where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    return (
        f'User "{user.name}" cannot {asked.verb} resource "{resource}" in API group '
        f'"{asked.group}" {where}'
    )
