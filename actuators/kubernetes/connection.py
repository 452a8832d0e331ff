"""Opens a cluster as kubectl would, without retries of the library's own."""

from pathlib import Path

from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.config.config_exception import ConfigException
from yaml import YAMLError

from actuators.kubernetes.credentials import loader_of
from planner.domain.errors import InputError
from planner.domain.target import ClusterTarget


def connect(target: ClusterTarget) -> ApiClient:
    """A client of the target's cluster; nothing is asked yet.

    Raises
    ------
    InputError
        When there is no usable kubeconfig, no such context in it, or the command that it gets
        credentials from is not there, fails or hangs.
    """
    settings = Configuration()
    try:
        if target.kubeconfig is None and target.context is None and _inside_a_cluster():
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        else:
            loader = loader_of(target.kubeconfig, target.context)
            loader.load_and_set(settings)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError, ValueError, TypeError, AttributeError, YAMLError) as error:
        asked = f" ({target.kubeconfig})" if target.kubeconfig else ""
        raise InputError(
            f"no cluster to talk to{asked}: {' '.join(str(error).split())}; correct "
            "target.kubeconfig and target.context, or set KUBECONFIG"
        ) from error
    settings.retries = False  # what may be tried again is decided call by call
    return ApiClient(settings)


def _inside_a_cluster() -> bool:
    return Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()
