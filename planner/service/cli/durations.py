"""How long something lasts, as people write it: 30d, 2h, 1d12h, 90s."""

import re
from datetime import timedelta

from planner.domain.errors import InputError

_FORM = re.compile("".join(rf"(?:(\d+(?:\.\d+)?){unit})?" for unit in "dhms"))
_UNITS = ("days", "hours", "minutes", "seconds")
LONGEST = timedelta(days=3660)


def duration_of(text: str) -> timedelta | None:
    """What a text such as 1d12h stands for; None: it is no duration.

    Raises
    ------
    OverflowError
        When no calendar reaches so far.
    """
    form = _FORM.fullmatch(text) if text else None
    if form is None:
        return None
    amounts = {unit: float(n) for unit, n in zip(_UNITS, form.groups(), strict=True) if n}
    return timedelta(**amounts)


def duration(text: str, *, option: str) -> timedelta:
    """What an option's value stands for, up to ten years.

    Raises
    ------
    InputError
        When it is no duration, or a longer one.
    """
    try:
        found = duration_of(text)
    except OverflowError:
        found = None
    if found is None or found > LONGEST:
        raise InputError(
            f"{option} {text!r} is no duration up to ten years: write it as 30d, 12h, 90s or 1d12h"
        )
    return found
