"""Logs of the service: one line an event, as `key=value` or JSON, with the request that caused it.

`extra=fields(...)` gives a line figures of its own; whatever else is logged goes in as `msg`.
"""

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

from planner.service.telemetry.observability import LogFormat

REQUEST_ID: ContextVar[str] = ContextVar("poolwise_request_id", default="")
"""Of the request that is being answered; empty outside of one."""
_PLAIN = re.compile(r"[\w.:/@+,%-]+")
_QUIET = ("httpx", "httpcore", "apscheduler", "alembic", "uvicorn.error")
"""Their lines name addresses, which may be secrets, or say what ours say already."""
_SKIPPED = 'Execution of job "%s" skipped'
"""How APScheduler's warning of a job that is still at it begins; `loop.scheduler` warns of each."""

Field = str | int | float | bool | None


def fields(**named: Field) -> dict[str, object]:
    """`extra` of a logging call: what the line says, by name."""
    return {"poolwise_fields": named}


class _Formatter(logging.Formatter):
    """What both ways have in common."""

    def facts(self, record: logging.LogRecord) -> dict[str, Field]:
        """Everything that the line says, in order."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told: dict[str, Field] = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        request_id: str = getattr(record, "request_id", "") or REQUEST_ID.get()
        if request_id:
            told["request_id"] = request_id
        told["msg"] = record.getMessage()
        told |= getattr(record, "poolwise_fields", {})
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return told


class KeyValue(_Formatter):
    """`at=... level=info logger=poolwise.loop msg=tick deployment=shop`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in it."""
        return " ".join(f"{name}={_value(value)}" for name, value in self.facts(record).items())


class Json(_Formatter):
    """One JSON document a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in it."""
        return json.dumps(self.facts(record), ensure_ascii=False, default=str)


def _value(value: Field) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def log_to(stream: TextIO | None, how: LogFormat, *, level: int = logging.INFO) -> logging.Handler:
    """Write the service's log to a stream, standard error by default; the handler that does."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Json() if how is LogFormat.JSON else KeyValue())
    root = logging.getLogger()
    root.addHandler(handler)
    logging.getLogger("poolwise").setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("apscheduler.scheduler").addFilter(_says_something_new)
    return handler


def _says_something_new(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_SKIPPED)
