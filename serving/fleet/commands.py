"""What a control socket's requests mean for a deployment."""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import TypeVar, cast

from planner.domain.errors import InputError
from planner.domain.fleet import Role
from serving.fleet.caretaker import Caretaker
from serving.fleet.changes import Changes
from serving.fleet.control import Json, Say
from serving.fleet.members import Member
from serving.workers.engine import EngineFlags

T = TypeVar("T")


@dataclass(slots=True)
class Commands:
    """Carries out requests: `list add remove flip promote replace down`.

    Parameters
    ----------
    ended : threading.Event
        Set when somebody asks the deployment to end.
    """

    changes: Changes
    caretaker: Caretaker
    ended: threading.Event = field(default_factory=threading.Event)

    def answer(self, request: Json, say: Say) -> Json:
        """Carry out one request; what came of it.

        Raises
        ------
        InputError
            When it is no request that there is.
        OperationError
            When the deployment does not do as asked.
        """
        known: dict[str, Callable[[Json, Say], Json]] = {
            "list": self._list,
            "add": self._add,
            "remove": self._remove,
            "flip": self._flip,
            "promote": self._promote,
            "replace": self._replace,
            "down": self._down,
        }
        command = known.get(str(request.get("command")))
        if command is None:
            raise InputError(
                f"there is no command {request.get('command')!r}: take one of {', '.join(known)}"
            )
        return command(request, say)

    def _list(self, _request: Json, _say: Say) -> Json:
        deployment = self.changes.deployment
        urls = {r.cell: r.url for r in deployment.endpoints().routers}
        return {
            "model": deployment.site.model.name,
            "router": deployment.routing.kind.value,
            "cells": [
                {**asdict(c), "url": urls.get(c.cell), "lacks": [r.value for r in c.lacks]}
                for c in deployment.cells()
            ],
            "workers": [_described(m) for m in deployment.members],
            "given_up": list(self.caretaker.given_up),
        }

    def _add(self, request: Json, say: Say) -> Json:
        cell = _given(request, "cell", str, None)
        if cell is not None:
            self.changes.deployment.site.cell(cell)
        member = self.changes.add(
            _role(request),
            cell=cell,
            standby=bool(_given(request, "standby", bool, False)),
            say=say,
        )
        return {"worker": _described(member)}

    def _remove(self, request: Json, say: Say) -> Json:
        return {"seconds": self.changes.remove(_name(request), say=say)}

    def _flip(self, request: Json, say: Say) -> Json:
        return {"seconds": self.changes.flip(_name(request), _role(request), say=say)}

    def _promote(self, request: Json, _say: Say) -> Json:
        return {"seconds": self.changes.promote(_name(request), _role(request))}

    def _replace(self, request: Json, say: Say) -> Json:
        flags = _changed_flags(self.changes.deployment.site.flags, request)
        return {"replaced": self.changes.replace_all(flags, say=say)}

    def _down(self, _request: Json, _say: Say) -> Json:
        self.ended.set()
        return {"ending": True}


def _described(member: Member) -> Json:
    worker = member.worker
    return {
        "name": worker.name,
        "role": member.role.value,
        "cell": member.cell,
        "state": member.state.value,
        "url": worker.url,
        "shape": member.shape.label,
        "age_s": time.monotonic() - worker.started_at_s,
        "log": str(worker.log_path),
    }


def _changed_flags(flags: EngineFlags, request: Json) -> EngineFlags:
    extra = _given(request, "engine_flags", list, None)
    if extra is not None and not all(isinstance(flag, str) for flag in extra):
        raise InputError(f"engine_flags must be a list of options, got {extra!r}")
    return replace(
        flags,
        max_model_len=_limit(request, "max_model_len", flags.max_model_len),
        max_num_seqs=_limit(request, "max_num_seqs", flags.max_num_seqs),
        max_num_batched_tokens=_limit(
            request, "max_num_batched_tokens", flags.max_num_batched_tokens
        ),
        extra=flags.extra if extra is None else tuple(cast("list[str]", extra)),
    )


def _limit(request: Json, name: str, before: int) -> int:
    value = _given(request, name, int, None)
    if value is not None and value < 1:
        raise InputError(f"{name} must be at least 1, got {value}")
    return before if value is None else value


def _role(request: Json) -> Role:
    given = request.get("role")
    try:
        return Role(str(given))
    except ValueError:
        raise InputError(
            f"there is no role {given!r}: take one of {', '.join(r.value for r in Role)}"
        ) from None


def _name(request: Json) -> str:
    name = _given(request, "name", str, None)
    if name is None:
        raise InputError("name a worker, as `list` shows them")
    return name


def _given(request: Json, name: str, kind: type[T], default: T | None) -> T | None:
    value = request.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise InputError(f"{name} must be {kind.__name__}, got {value!r}")
    return value
