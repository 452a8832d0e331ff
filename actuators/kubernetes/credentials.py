"""Credentials that a kubeconfig gets from a command (`exec`): what goes wrong there is told.

The client's own loader logs it and goes on without credentials, so that the cluster refuses
"system:anonymous"; and it waits for ever for a command that hangs.

References
----------
Kubernetes, "client-go credential plugins" (client.authentication.k8s.io/v1).
"""

import json
import os
import shutil
import signal
import subprocess
from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from kubernetes.config.kube_config import (
    KUBE_CONFIG_DEFAULT_LOCATION,
    FileOrData,
    KubeConfigLoader,
    KubeConfigMerger,
)

from actuators.kubernetes.resources import Json, at, entries, text
from planner.domain.errors import InputError

PLUGIN_TIMEOUT_S = 60.0
"""A command that has not answered by then waits for something that nobody gives it, seconds."""
_MOST_SAID = 300


class Loader(KubeConfigLoader):
    """Reads a kubeconfig as the client does, but for what its `exec` command gives."""

    def _load_from_exec_plugin(self) -> bool:
        """Ask the command; False where there is none. Raises InputError."""
        user, cluster = self._user, self._cluster
        if user is None or cluster is None or "exec" not in user:
            return False
        folder = self._get_base_path(cluster.path)  # type: ignore[no-untyped-call]
        about = cluster.value if isinstance(cluster.value, dict) else {}
        status = ask_plugin(user["exec"].value, folder=Path(folder), cluster=about)
        if token := text(status, "token"):
            self.token = f"Bearer {token}"
        else:
            for name, key in (
                ("cert_file", "clientCertificateData"),
                ("key_file", "clientKeyData"),
            ):
                coded = {key: b64encode(text(status, key).encode()).decode()}
                found = FileOrData(coded, None, data_key_name=key)  # type: ignore[no-untyped-call]
                setattr(self, name, found.as_file())  # type: ignore[no-untyped-call]
        if until := text(status, "expirationTimestamp"):
            self.expiry = datetime.fromisoformat(until)
        return True


def loader_of(kubeconfig: str | None, context: str | None) -> Loader:
    """The loader of a kubeconfig; nothing is asked yet.

    Raises
    ------
    ConfigException
        When there is none, or no such context in it.
    """
    merged = KubeConfigMerger(kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION)  # type: ignore[no-untyped-call]
    if merged.config is None:
        from kubernetes.config.config_exception import ConfigException

        raise ConfigException("Invalid kube-config file. No configuration found.")
    return Loader(merged.config, active_context=context, config_base_path=None)  # type: ignore[no-untyped-call]


def ask_plugin(plugin: Mapping[str, object], *, folder: Path, cluster: Json) -> Json:
    """The `status` that a credential plugin answers.

    Parameters
    ----------
    plugin : mapping
        `exec` of a kubeconfig's user.
    folder : Path
        Of the kubeconfig; a relative path of a command counts from there.
    cluster : Json
        What the plugin is told where it asks for it (`provideClusterInfo`).

    Raises
    ------
    InputError
        When the command is not there, fails, hangs, or answers nothing that can be used.
    """
    command, version = (text(plugin, key) for key in ("command", "apiVersion"))
    if not command or not version:
        raise InputError("users[].exec of the kubeconfig needs command and apiVersion: add them")
    environment = {**os.environ, **_added(plugin)}
    if "/" not in command and shutil.which(command, path=environment.get("PATH")) is None:
        raise _missing(command, plugin, "is not on the PATH")
    if "/" in command and not os.access(folder / command, os.X_OK):
        raise _missing(command, plugin, "is no file that can be run")
    spec: Json = {"interactive": False}
    if at(plugin, "provideClusterInfo"):
        spec["cluster"] = _cluster_info(cluster)
    asked = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
    environment["KUBERNETES_EXEC_INFO"] = json.dumps(asked, default=str)
    arguments = plugin.get("args")
    words = [command, *(map(str, arguments) if isinstance(arguments, list) else ())]
    answer: object
    try:
        answer = json.loads(_run(words, folder, environment))
    except ValueError as error:
        raise InputError(
            f"the credential plugin `{command}` of the kubeconfig answered no ExecCredential "
            f"({error}): run it by hand to see what it says"
        ) from error
    status = at(answer, "status")
    known = isinstance(status, dict) and at(answer, "apiVersion") == version
    pair = text(status, "clientCertificateData") and text(status, "clientKeyData")
    if not known or not isinstance(status, dict) or not (text(status, "token") or pair):
        raise InputError(
            f"the credential plugin `{command}` of the kubeconfig gave neither a token nor a "
            f"certificate with its key as {version}: run it by hand to see what it says"
        )
    return status


def _added(plugin: Mapping[str, object]) -> dict[str, str]:
    listed = entries(dict(plugin), "env")
    return {text(one, "name"): text(one, "value") for one in listed if text(one, "name")}


def _cluster_info(cluster: Json) -> Json:
    """What a plugin is told of the cluster: what the kubeconfig says, and its own extension."""
    told = {key: value for key, value in cluster.items() if key != "extensions"}
    for one in entries(cluster, "extensions"):
        if text(one, "name") == "client.authentication.k8s.io/exec":
            told["config"] = one.get("extension")
    return told


def _missing(command: str, plugin: Mapping[str, object], why: str) -> InputError:
    hint = " ".join(text(plugin, "installHint").split())
    return InputError(
        f"the credential plugin `{command}` of the kubeconfig {why}: install it where Poolwise "
        "runs, or use a kubeconfig or a service account with a token"
        + (f" (its installHint: {hint})" if hint else "")
    )


def _run(words: list[str], folder: Path, environment: Mapping[str, str]) -> str:
    """What the command prints; it, and all that it started, is ended when it hangs."""
    told = f"the credential plugin `{words[0]}` of the kubeconfig"
    try:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise InputError(f"{told} cannot be started ({error}): correct its command") from error
    try:
        out, said = process.communicate(timeout=PLUGIN_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise InputError(
            f"{told} did not answer within {PLUGIN_TIMEOUT_S:g} s: run it by hand; where it asks "
            "a person to log in, log in first, or use a service account"
        ) from error
    if process.returncode:
        why = " ".join(said.split())[-_MOST_SAID:] or "it said nothing"
        raise InputError(
            f"{told} failed with exit status {process.returncode} ({why}): run it by hand, log in "
            "again, or correct users[].exec there"
        )
    return out
