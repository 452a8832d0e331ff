"""`--event` of forecasts: something that people know and no history tells, as one readable word."""

import re
from datetime import datetime
from typing import TYPE_CHECKING

from planner.domain.errors import InputError
from planner.service.cli.durations import duration_of
from planner.service.cli.options import instant

if TYPE_CHECKING:
    from planner.domain.forecast import KnownEvent

EXAMPLES = (
    "launch 2026-11-01T14:00Z/2h x2 · sale 2026-11-27T00:00Z/2026-11-30T00:00Z x1.5 class=chat"
)
_FORM = re.compile(
    r"(?P<name>\S.*?)\s+(?P<start>\S+?)/(?P<end>\S+)\s+x(?P<ratio>\S+)"
    r"(?:\s+class=(?P<request_class>\S.*?))?",
    re.DOTALL,
)
_FIRST_YEAR, _LAST_YEAR = 1970, 2200


def known_event_of(text: str) -> "KnownEvent":
    """The event that an option's value describes.

    Raises
    ------
    InputError
        When it is none; with what one looks like.
    """
    from planner.domain.forecast import KnownEvent

    where = f"--event {text!r}"
    form = _FORM.fullmatch(text.strip())
    if form is None:
        raise InputError(f"{where} is no event; write one as {EXAMPLES}")
    start_at = _instant(form["start"], where)
    try:
        return KnownEvent(
            name=form["name"],
            start_at=start_at,
            end_at=_end(form["end"], start_at, where),
            rate_ratio=_ratio(form["ratio"], where),
            request_class=form["request_class"],
        )
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _instant(text: str, where: str) -> datetime:
    moment = instant(text, option=where)
    if moment is None:
        raise InputError(f"{where} has no start")
    return moment


def _end(text: str, start_at: datetime, where: str) -> datetime:
    """An instant, or so long after the start, as in 2h or 1d12h."""
    try:
        lasts = duration_of(text)
        if lasts is None:
            return _instant(text, where)
        end_at = start_at + lasts
    except OverflowError:
        end_at = None
    if end_at is None or not _FIRST_YEAR <= end_at.year <= _LAST_YEAR:
        raise InputError(f"{where}: it would end after the year {_LAST_YEAR}")
    return end_at


def _ratio(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(
            f"{where}: {text!r} is no ratio; x2 stands for twice as many requests, x0 for none"
        ) from error
