"""Failures that a test orders: which call they hit, and what becomes of it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from tests.kubernetes.errors import ApiError, Json

Moment = Literal["before", "after"]
"""Before the server did anything, or after the write took effect but before the answer left."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One request in the log; `code` is 0 while, or when never, answered."""

    verb: str
    path: str
    query: dict[str, str]
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    user: str = ""
    manager: str = ""
    content_type: str = ""
    body: Any = None
    code: int = 0
    answer: Any = None
    at: datetime

    @property
    def dry_run(self) -> bool:
        return self.query.get("dryRun") == "All"

    @property
    def writes(self) -> bool:
        """Whether it was meant to change something (reviews and dry runs are not)."""
        return (
            self.verb in {"create", "update", "patch", "delete", "deletecollection"}
            and not self.dry_run
            and not self.resource.startswith("selfsubject")
        )


@dataclass(slots=True, kw_only=True)
class Fault:
    """What happens to the calls that match. A field left None matches every call.

    Attributes
    ----------
    verb, resource, subresource, namespace, name, dry_run
        Which calls: `get list watch create update patch delete`, the plural, the subresource
        ("" means the object itself), and whether the call is a dry run.
    nth
        The first matching call that is hit, counted from 1.
    times
        How many calls are hit from there on; None means all that follow.
    status
        Answer with this code, and the `Status` a real server sends with it.
    message, retry_after_s
        What that answer says.
    hang
        Never answer; the connection stays open until the client gives up.
    cut
        Close the connection without an answer.
    moment
        When `status`, `hang`, `cut` and `hook` strike.
    latency_s
        Wait so long before doing anything, seconds.
    hook
        Called with the logged call: to kill the client, or to let another write in between.
    """

    verb: str | None = None
    resource: str | None = None
    subresource: str | None = None
    namespace: str | None = None
    name: str | None = None
    dry_run: bool | None = None
    nth: int = 1
    times: int | None = 1
    status: int | None = None
    message: str = ""
    retry_after_s: int = 1
    hang: bool = False
    cut: bool = False
    moment: Moment = "before"
    latency_s: float = 0.0
    hook: Callable[[Call], None] | None = None
    seen: int = field(default=0, init=False)
    struck: int = field(default=0, init=False)

    def matches(self, call: Call) -> bool:
        wanted = {
            "verb": self.verb,
            "resource": self.resource,
            "subresource": self.subresource,
            "namespace": self.namespace,
            "name": self.name,
            "dry_run": self.dry_run,
        }
        return all(v is None or getattr(call, key) == v for key, v in wanted.items())

    def error(self, call: Call) -> ApiError:
        """The answer ordered by `status`."""
        if self.status is None:
            raise ValueError("this fault answers with no status")
        return _answer(self.status, call, self.message, self.retry_after_s)


class Faults:
    """The faults ordered now."""

    def __init__(self) -> None:
        self.ordered: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self.ordered.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self.ordered.clear()

    def striking(self, call: Call) -> list[Fault]:
        """The faults that hit this call; counts it for every fault that it matches."""
        hit = []
        with self._lock:
            for fault in self.ordered:
                if not fault.matches(call):
                    continue
                fault.seen += 1
                if fault.seen >= fault.nth and (fault.times is None or fault.struck < fault.times):
                    fault.struck += 1
                    hit.append(fault)
        return hit


_ANSWERS: dict[int, tuple[str, str]] = {
    400: ("BadRequest", "the server rejected our request for an unknown reason"),
    401: ("Unauthorized", "Unauthorized"),
    403: ("Forbidden", 'cannot {verb} resource "{resource}" in API group "{group}"'),
    404: ("NotFound", '{resource} "{name}" not found'),
    409: (
        "Conflict",
        'Operation cannot be fulfilled on {resource} "{name}": the object has been modified; '
        "please apply your changes to the latest version and try again",
    ),
    410: ("Expired", "The resourceVersion for the provided list is too old."),
    422: ("Invalid", '{resource} "{name}" is invalid'),
    429: ("TooManyRequests", "too many requests, please try again later"),
    500: ("InternalError", "Internal error occurred: etcdserver: request timed out"),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
    504: ("Timeout", "request did not complete within the allotted timeout"),
}


def _answer(status: int, call: Call, message: str, retry_after_s: int) -> ApiError:
    reason, worded = _ANSWERS[status]
    resource = f"{call.resource}.{call.group}" if call.group else call.resource
    text = message or worded.format(
        verb=call.verb, resource=resource, group=call.group, name=call.name
    )
    details: Json = {"name": call.name, "group": call.group, "kind": call.resource}
    headers = {}
    if status == 429:
        details["retryAfterSeconds"] = retry_after_s
        headers["Retry-After"] = str(retry_after_s)
    return ApiError(status, reason, text, details=details, headers=headers)
