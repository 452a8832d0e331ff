"""Whether a pod that is told to end finishes the requests that it has begun."""

import re

from actuators.kubernetes.resources import Json, at, entries, number

_SHUTDOWN = re.compile(r"--shutdown-timeout[= ](\d+(?:\.\d+)?)")
_SLEEP = re.compile(r"\bsleep\s+(\d+)([smh]?)")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600}
DEFAULT_GRACE_S = 30


def cut_short(pod: Json, *, least_s: float) -> str:
    """Why requests would be ended with the pod; empty where they may finish.

    vLLM ends running requests on SIGTERM unless `--shutdown-timeout` is given, and Kubernetes ends
    the container after its grace period, of which a preStop hook takes its part.

    Parameters
    ----------
    least_s : float
        How long requests have to be given, seconds.
    """
    grace_s = number(pod, "spec", "terminationGracePeriodSeconds", absent=DEFAULT_GRACE_S)
    needs_s = 0.0
    for container in entries(pod, "spec", "containers"):
        drains_s = _shutdown_s(container)
        if drains_s is not None:  # a sidecar's waiting finishes nothing
            needs_s = max(needs_s, _pre_stop_s(container) + drains_s)
    if needs_s == 0:
        return (
            "its engine ends running requests at once when it is told to stop: give vLLM "
            "--shutdown-timeout"
        )
    if needs_s < least_s:
        return (
            f"running requests are ended {needs_s:g} s after it is told to stop, and "
            f"target.drain_s asks for {least_s:g} s: give vLLM a longer --shutdown-timeout, and "
            "the pod a longer terminationGracePeriodSeconds"
        )
    if grace_s <= needs_s:
        return (
            f"it is killed after terminationGracePeriodSeconds {grace_s} s, but finishing its "
            f"requests may take {needs_s:g} s: make the first larger"
        )
    return ""


def _shutdown_s(container: Json) -> float | None:
    words = [*_words(container, "command"), *_words(container, "args")]
    found = _SHUTDOWN.findall(" ".join(words))
    return float(found[-1]) if found else None  # given twice, the last one counts


def _pre_stop_s(container: Json) -> float:
    hook = at(container, "lifecycle", "preStop")
    asleep = number(hook, "sleep", "seconds")
    command = at(hook, "exec", "command")
    said = _SLEEP.search(" ".join(map(str, command))) if isinstance(command, list) else None
    return float(max(asleep, int(said[1]) * _UNITS_S[said[2]] if said else 0))


def _words(container: Json, key: str) -> list[str]:
    found = at(container, key)
    return [str(x) for x in found] if isinstance(found, list) else []
