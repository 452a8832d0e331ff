"""One API server, fake or real, as the contract suite uses it."""

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import kubernetes
import urllib3
import yaml
from kubernetes import client as k8s

from tests.kubernetes.cluster import FakeCluster

Object = dict[str, Any]

GROUP = "contract.poolwise.test"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"

# A kind of our own, so that checking a real cluster touches nothing that is in use there.
POOL_DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: pools.contract.poolwise.test}
spec:
  group: contract.poolwise.test
  names: {kind: Pool, listKind: PoolList, plural: pools, singular: pool}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale:
        specReplicasPath: .spec.workers.replicas
        statusReplicasPath: .status.replicas
        labelSelectorPath: .status.selector
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [engine]
            x-kubernetes-validations:
            - rule: "!(has(self.fixed) && has(self.scaling))"
              message: fixed and scaling are mutually exclusive
            properties:
              engine: {type: string, enum: [vllm, sglang]}
              fixed: {type: integer, minimum: 0}
              scaling: {type: object, properties: {most: {type: integer}}}
              drain_s: {type: integer, default: 60}
              workers:
                type: object
                properties: {replicas: {type: integer, minimum: 0}}
              roles:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties: {name: {type: string}, replicas: {type: integer}}
              plain:
                type: array
                items:
                  type: object
                  properties: {name: {type: string}, replicas: {type: integer}}
          status:
            type: object
            properties: {replicas: {type: integer}, selector: {type: string}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An API server, an administrator's client of it, and a namespace."""

    client: k8s.ApiClient
    fake: FakeCluster | None
    namespace: str = ""

    @property
    def apps(self) -> k8s.AppsV1Api:
        return k8s.AppsV1Api(self.client)

    @property
    def core(self) -> k8s.CoreV1Api:
        return k8s.CoreV1Api(self.client)

    @property
    def pools(self) -> "Pools":
        return Pools(self.client, self.namespace)

    @contextmanager
    def in_namespace(self) -> Iterator["Site"]:
        name = "contract-" + secrets.token_hex(4)
        self.core.create_namespace({"metadata": {"name": name}})
        try:
            yield replace(self, namespace=name)
        finally:
            self.core.delete_namespace(name)

    def deployment(self, name: str = "decode", replicas: int = 2, **more: Any) -> Object:
        """Create a Deployment whose pods no scheduler places; returns it once it is at rest."""
        manifest = deployment(name, replicas) | more
        self.apps.create_namespaced_deployment(self.namespace, manifest)
        return self.settled(name)

    def settled(self, name: str) -> Object:
        """The Deployment, on a real cluster once its controller has written all it has to."""
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{name}"
        found = self.raw("GET", path)[1]
        for _ in range(50 if self.fake is None else 0):
            if found.get("status", {}).get("replicas", 0) == found["spec"]["replicas"]:
                break
            time.sleep(0.1)
            found = self.raw("GET", path)[1]
        return found

    def raw(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> tuple[int, Any]:
        """A plain request; the code and the decoded body whatever the code is."""
        configuration = self.client.configuration
        headers = {"Content-Type": content_type}
        for setting in configuration.auth_settings().values():
            headers[setting["key"]] = setting["value"]
        pool = urllib3.PoolManager(
            ca_certs=configuration.ssl_ca_cert, cert_file=configuration.cert_file,
            key_file=configuration.key_file, retries=False,
        )  # fmt: skip
        try:
            data = None if body is None else json.dumps(body).encode()
            answer = pool.request(method, configuration.host + path, body=data, headers=headers)
            text = answer.data.decode()
            is_json = "json" in answer.headers.get("Content-Type", "")
            return answer.status, json.loads(text) if is_json else text
        finally:
            pool.clear()

    def limited(self, rules: list[Object], name: str = "limited") -> "Site":
        """This site as a service account that may do what the rules of its Role say."""
        rbac = k8s.RbacAuthorizationV1Api(self.client)
        self.core.create_namespaced_service_account(self.namespace, {"metadata": {"name": name}})
        rbac.create_namespaced_role(self.namespace, {"metadata": {"name": name}, "rules": rules})
        rbac.create_namespaced_role_binding(self.namespace, {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": self.namespace}],
        })  # fmt: skip
        made = self.core.create_namespaced_service_account_token(
            name, self.namespace, {"spec": {"audiences": [], "expirationSeconds": 600}}
        )
        return self.with_token(made.status.token)

    def with_token(self, token: str) -> "Site":
        configuration = k8s.Configuration(host=self.client.configuration.host)
        configuration.ssl_ca_cert = self.client.configuration.ssl_ca_cert
        configuration.api_key = {"authorization": f"Bearer {token}"}
        return replace(self, client=k8s.ApiClient(configuration))

    def close(self) -> None:
        """Take the contract's kind away again."""
        api = k8s.ApiextensionsV1Api(self.client)
        api.delete_custom_resource_definition("pools.contract.poolwise.test")
        self.client.rest_client.close()


class Pools:
    """The contract's own kind, in one namespace, through the official client."""

    def __init__(self, client: k8s.ApiClient, namespace: str) -> None:
        self._api = k8s.CustomObjectsApi(client)
        self._at = (GROUP, "v1", namespace, "pools")

    def create(self, name: str, spec: Object, **how: Any) -> Object:
        body = {"apiVersion": f"{GROUP}/v1", "kind": "Pool", "metadata": {"name": name},
                "spec": spec}  # fmt: skip
        return self._api.create_namespaced_custom_object(*self._at, body, **how)

    def get(self, name: str) -> Object:
        return self._api.get_namespaced_custom_object(*self._at, name)

    def replace(self, name: str, body: Object) -> Object:
        return self._api.replace_namespaced_custom_object(*self._at, name, body)

    def patch(self, name: str, body: Any, content_type: str = MERGE, **how: Any) -> Object:
        return self._api.patch_namespaced_custom_object(
            *self._at, name, body, _content_type=content_type, **how
        )

    def apply(self, name: str, spec: Object, manager: str, **how: Any) -> Object:
        body = {"apiVersion": f"{GROUP}/v1", "kind": "Pool", "metadata": {"name": name},
                "spec": spec}  # fmt: skip
        return self.patch(name, body, APPLY, field_manager=manager, **how)

    def patch_status(self, name: str, body: Object) -> Object:
        return self._api.patch_namespaced_custom_object_status(
            *self._at, name, body, _content_type=MERGE
        )

    def scale(self, name: str) -> Object:
        return self._api.get_namespaced_custom_object_scale(*self._at, name)

    def patch_scale(self, name: str, body: Any, content_type: str = MERGE, **how: Any) -> Object:
        return self._api.patch_namespaced_custom_object_scale(
            *self._at, name, body, _content_type=content_type, **how
        )

    def list(self, **how: Any) -> Object:
        return self._api.list_namespaced_custom_object(*self._at, **how)

    def delete(self, name: str) -> Object:
        return self._api.delete_namespaced_custom_object(*self._at, name)


def deployment(name: str, replicas: int) -> Object:
    """A Deployment of two containers."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {**labels, "llm-d.ai/role": "decode"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "schedulerName": "nobody",
                    "containers": [
                        {"name": "engine", "image": "registry.k8s.io/pause:3.9",
                         "resources": {"limits": {"cpu": "1"}}},
                        {"name": "sidecar", "image": "registry.k8s.io/pause:3.9"},
                    ],
                },
            },
        },
    }  # fmt: skip


def fake_site(running: FakeCluster) -> Site:
    return _with_pools(Site(client=running.client(), fake=running))


def real_site() -> Site:
    """The cluster that KUBECONFIG names."""
    return _with_pools(plain_site())


def plain_site() -> Site:
    """The same without the contract's own kind."""
    return Site(client=kubernetes.config.new_client_from_config(), fake=None)


def _with_pools(site: Site) -> Site:
    api = k8s.ApiextensionsV1Api(site.client)
    api.create_custom_resource_definition(yaml.safe_load(POOL_DEFINITION))
    for _ in range(100):
        if site.raw("GET", f"/apis/{GROUP}/v1/pools")[0] == 200:
            return site
        time.sleep(0.1)
    raise TimeoutError("the contract's own kind is not served after 10 s")
