"""A whole fake cluster in one value: server, objects, tokens, faults, log."""

import secrets
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import kubernetes
import yaml

from tests.kubernetes.access import ADMIN, Rule, User, service_account
from tests.kubernetes.admission import Webhook, dynamo_graph_webhook
from tests.kubernetes.api import Api
from tests.kubernetes.certificates import make
from tests.kubernetes.conversions import CONVERSIONS
from tests.kubernetes.faults import Call, Fault
from tests.kubernetes.kinds import Kind
from tests.kubernetes.plain import copied
from tests.kubernetes.routing import Request
from tests.kubernetes.server import ApiServer

Object = dict[str, Any]

CRD_FOLDER = Path(__file__).with_name("crds")


class FakeCluster:
    """A running API server; use it in a `with`, or call `close`.

    Parameters
    ----------
    crds
        Names of files in `crds/` to install, without `.yaml`; "all" installs every one.
    tls_folder
        Where to keep a certificate of this server's own, which makes it speak HTTPS. `kubectl`
        sends tokens over HTTPS only.
    """

    def __init__(self, *, crds: Iterable[str] | str = (), tls_folder: Path | None = None) -> None:
        self.api = Api()
        self.api.registry.conversions.update(CONVERSIONS)
        self.api.admission.webhooks["vdynamographdeployment.kb.io"] = dynamo_graph_webhook
        self.admin_token = self.token(ADMIN)
        for name in ("default", "kube-system"):
            self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        wanted = sorted(p.stem for p in CRD_FOLDER.glob("*.yaml")) if crds == "all" else crds
        for name in wanted:
            self.create(_definition(name))
        tls, self.certificate = make(tls_folder) if tls_folder else (None, None)
        self.server = ApiServer(self.api, tls)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server. Raises what went wrong inside it, if anything did."""
        self.server.close()
        for failure in self.server.failures:
            raise RuntimeError("the fake API server itself failed on a request") from failure

    # -- clients ------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return self.server.url

    def token(self, user: User) -> str:
        """A bearer token of a user."""
        made = secrets.token_urlsafe(12)
        self.api.access.tokens[made] = user
        return made

    def token_with(self, *rules: Rule, name: str = "limited", namespace: str = "default") -> str:
        """A bearer token of a service account that may do what these rules say, no more."""
        return self.token(service_account(namespace, name, rules))

    def revoke(self, token: str) -> None:
        """Make a token invalid: it is answered 401 from now on."""
        del self.api.access.tokens[token]

    def client(self, token: str | None = None) -> kubernetes.client.ApiClient:
        """An official client, of the administrator unless a token is given."""
        configuration = kubernetes.client.Configuration(host=self.url)
        configuration.ssl_ca_cert = str(self.certificate) if self.certificate else None
        configuration.api_key = {"authorization": f"Bearer {token or self.admin_token}"}
        return kubernetes.client.ApiClient(configuration)

    def kubeconfig(self, path: Path, token: str | None = None, namespace: str = "default") -> Path:
        """Write a kubeconfig file for this cluster; returns its path."""
        target = {"server": self.url}
        if self.certificate:
            target["certificate-authority"] = str(self.certificate)
        made = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": target}],
            "users": [{"name": "user", "user": {"token": token or self.admin_token}}],
            "contexts": [
                {
                    "name": "fake",
                    "context": {"cluster": "fake", "user": "user", "namespace": namespace},
                }
            ],
        }
        path.write_text(yaml.safe_dump(made))
        return path

    # -- objects, past access, faults and log -------------------------------------------------

    def load(self, manifests: Path | str, namespace: str = "default") -> list[Object]:
        """Create every object of a YAML file or text; returns them as stored.

        Raises
        ------
        ApiError
            When the server's validation, strict on unknown fields, refuses one.
        """
        text = manifests.read_text() if isinstance(manifests, Path) else manifests
        return [self.create(one, namespace) for one in yaml.safe_load_all(text) if one]

    def create(
        self, manifest: Object, namespace: str = "default", *, manager: str = "kubectl"
    ) -> Object:
        """Create an object; its `status`, if any, is written too."""
        kind = self._kind(manifest)
        at = self._at(kind, "POST", manifest, namespace, manager)
        made = self.api.writing.create(at.asking(name=""), _ignore)[1]
        if "status" in manifest and kind.has_status:
            made["status"] = copied(manifest["status"])
            made = self.write_status(made, manager=manager)
        return made

    def get(
        self, plural: str, name: str, namespace: str = "default", *, version: str = ""
    ) -> Object:
        """An object by its plural, `deployments.apps` where ambiguous. KeyError if none."""
        kind = self.kind(plural, version)
        stored = self.api.store.get(kind.key, namespace if kind.namespaced else "", name)
        if stored is None:
            raise KeyError(f"no {plural} {namespace}/{name}")
        return self.api.registry.converted(kind, stored, kind.version)

    def objects(
        self,
        plural: str,
        namespace: str = "",
        having: Callable[[Object], bool] = lambda _metadata: True,
    ) -> list[Object]:
        """All objects of a kind, or those whose metadata passes."""
        kind = self.kind(plural)
        return [
            self.api.registry.converted(kind, one, kind.version)
            for one in self.api.store.all(kind.key, namespace, having)
        ]

    def update(self, obj: Object, *, manager: str = "kubectl", user: User = ADMIN) -> Object:
        """Replace an object, as a client that read it would; a resourceVersion is checked."""
        kind = self._kind(obj)
        obj = copied(obj)
        namespace = obj["metadata"].get("namespace", "")
        request = self._at(kind, "PUT", obj, namespace, manager)
        if not kind.unconditional_update:
            current = self.get(kind.plural, request.name, namespace)["metadata"]
            obj["metadata"].setdefault("resourceVersion", current["resourceVersion"])
        return self.api.writing.update(request.asking(user=user), _ignore)[1]

    def write_status(self, obj: Object, *, manager: str = "kube-controller-manager") -> Object:
        """Replace the status of an object, as its controller does."""
        kind = self._kind(obj)
        obj = copied(obj)
        obj["metadata"].pop("resourceVersion", None)
        current = self.get(f"{kind.plural}.{kind.group}".rstrip("."), obj["metadata"]["name"],
                           obj["metadata"].get("namespace", ""), version=kind.version)  # fmt: skip
        obj["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
        request = self._at(kind, "PUT", obj, obj["metadata"].get("namespace", ""), manager)
        return self.api.writing.update(request.asking(subresource="status"), _ignore)[1]

    def scale(
        self, plural: str, name: str, replicas: int, namespace: str = "default",
        *, manager: str = "kubectl",
    ) -> Object:  # fmt: skip
        """Set the count through `/scale`, as `kubectl scale` or an autoscaler does."""
        kind = self.kind(plural)
        body = {"spec": {"replicas": replicas}, "metadata": {}}
        request = self._at(kind, "PUT", body, namespace, manager)
        return self.api.writing.update(request.asking(name=name, subresource="scale"), _ignore)[1]

    def delete(
        self, plural: str, name: str, namespace: str = "default", *, grace_s: int | None = None
    ) -> None:
        """Delete an object; a pod on a node only starts to terminate unless `grace_s` is 0."""
        kind = self.kind(plural)
        request = self._at(kind, "DELETE", {}, namespace, "kubectl").asking(name=name)
        options = {} if grace_s is None else {"gracePeriodSeconds": grace_s}
        self.api.writing.delete(request.asking(body=options))

    def kind(self, plural: str, version: str = "") -> Kind:
        """The kind of a plural, in its storage version unless one is named. KeyError if none."""
        name, _, group = plural.partition(".")
        for known in self.api.registry.kinds.values():
            wanted = version or known.storage_version
            if known.plural == name and known.version == wanted and group in {"", known.group}:
                return known
        raise KeyError(f"no kind with plural {plural!r} is served")

    def _kind(self, manifest: Object) -> Kind:
        found = self.api.registry.of_object(manifest["apiVersion"], manifest["kind"])
        if found is None:
            raise KeyError(f"no kind {manifest['kind']} of {manifest['apiVersion']} is served")
        return found

    def _at(self, kind: Kind, method: str, body: Object, namespace: str, manager: str) -> Request:
        metadata = body.get("metadata", {})
        namespace = metadata.get("namespace", namespace) if kind.namespaced else ""
        return Request(
            method=method, path="", group=kind.group, version=kind.version, plural=kind.plural,
            namespace=namespace, name=metadata.get("name", ""), body=body, kind=kind,
            query={"fieldManager": manager, "fieldValidation": "Strict"},
        )  # fmt: skip

    # -- faults, hooks, log -------------------------------------------------------------------

    def fault(self, **how: Any) -> Fault:
        """Order a fault; the arguments are those of `Fault`."""
        return self.server.faults.add(Fault(**how))

    def heal(self) -> None:
        """Take back all ordered faults."""
        self.server.faults.clear()

    def webhook(self, name: str, webhook: Webhook) -> None:
        """Register a validating admission webhook."""
        self.api.admission.webhooks[name] = webhook

    def compact(self) -> None:
        """Forget the history: watches and pages from before are answered 410."""
        self.api.store.compact()

    @property
    def calls(self) -> list[Call]:
        """Every request of clients, oldest first."""
        return self.server.log.calls()

    @property
    def writes(self) -> list[Call]:
        """The requests that were meant to change something."""
        return [call for call in self.calls if call.writes]

    def forget_calls(self) -> None:
        self.server.log.clear()


@cache
def _definition(name: str) -> Object:
    loaded: Object = yaml.safe_load((CRD_FOLDER / f"{name}.yaml").read_text())
    return loaded


def _ignore(_warning: str) -> None:
    """Warnings of the cluster's own writes go nowhere."""
