"""Keeps secrets out of what is written for people: logs, tracebacks, messages."""

import logging
import re

HIDDEN = "***"
_SECRETS = (
    # Poolwise's own tokens, wherever they stand.
    (re.compile(r"\bpw_[A-Za-z0-9_-]{16,}"), f"pw_{HIDDEN}"),
    # Credentials in headers: Authorization: Bearer ..., Basic ...
    (re.compile(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{12,}"), rf"\1\2{HIDDEN}"),
    # Passwords in URLs; they may hold what should have been escaped, up to the last @.
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s:/@'\"]*):[^\s'\"]*@"), rf"\1:{HIDDEN}@"),
    # password=..., as in a URL's query and in what PostgreSQL's library is given.
    (
        re.compile(r"(?i)\b((?:ssl)?passw(?:or)?d|pwd|secret)(['\"]?\s*[=:]\s*)"
                   r"('[^']*'|\"[^\"]*\"|[^\s&,;)'\"]+)"),
        rf"\1\2{HIDDEN}",
    ),
)  # fmt: skip


def redact(text: str) -> str:
    """The text with what looks like a secret hidden."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class RedactingFormatter(logging.Formatter):
    """Hides secrets in what another formatter makes of a record, tracebacks included."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """The line, without secrets."""
        return redact(self._inner.format(record))


def redact_logs() -> None:
    """Hide secrets in all that the root logger's handlers write from now on."""
    for handler in logging.getLogger().handlers:
        if not isinstance(handler.formatter, RedactingFormatter):
            handler.setFormatter(RedactingFormatter(handler.formatter or logging.Formatter()))
