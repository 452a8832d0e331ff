"""`--event`: what happens to one replica, as one readable word."""

import re
from typing import TYPE_CHECKING

from planner.domain.errors import InputError

if TYPE_CHECKING:
    from pydantic import ValidationError

    from planner.service.documents.circumstances import EventDocument

EXAMPLES = (
    "fail@120s:pool=1,replica=0 · fail@120s:pool=1,replica=0,restarts=no · "
    "reclaim@60s:pool=0,replica=2,notice=30s · drain@90s:pool=decode:h100:tp2,replica=0 · "
    "flip@90s:pool=0,replica=1,to=1"
)
_FORM = re.compile(r"(?P<incident>\w+)@(?P<at>[^:]+):(?P<rest>.+)", re.DOTALL)
_FIELDS = {
    "pool": "pool",
    "replica": "replica",
    "notice": "notice_s",
    "restarts": "restarts",
    "to": "to_pool",
}
_YES_NO = {"yes": True, "no": False}


def event_of(text: str) -> "EventDocument":
    """The event that an option's value describes.

    Raises
    ------
    InputError
        When it is none; with what one looks like.
    """
    from pydantic import ValidationError

    from planner.service.documents.circumstances import EventDocument

    where = f"--event {text!r}"
    form = _FORM.fullmatch(text.strip())
    if form is None:
        raise InputError(f"{where} is no event; write one as {EXAMPLES}")
    fields: dict[str, object] = {
        "incident": form["incident"].lower(),
        "at_s": _seconds(form["at"], where),
    }
    for part in form["rest"].split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name not in _FIELDS:
            raise InputError(
                f"{where}: {part.strip()!r} is not one of "
                f"{', '.join(f'{known}=' for known in _FIELDS)}"
            )
        if _FIELDS[name] in fields:
            raise InputError(f"{where} gives {name} twice")
        fields[_FIELDS[name]] = _value(name, value, where)
    try:
        return EventDocument.model_validate(fields)
    except ValidationError as error:
        raise InputError(f"{where}: {_problem(error)}") from error


def _problem(error: "ValidationError") -> str:
    """The first problem, in the words of the option."""
    problem = error.errors()[0]
    spelt = {"incident": "the incident", "at_s": "the instant"}
    spelt |= {field: f"{name}=" for name, field in _FIELDS.items()}
    field = spelt.get(str(problem["loc"][0]), "") if problem["loc"] else ""
    if problem["type"] == "missing":
        return f"{field} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if field:
        return f"{field}: {message[0].lower()}{message[1:]}"
    return message.replace("notice_s", "notice=").replace("to_pool", "to=")


def _value(name: str, value: str, where: str) -> object:
    if name == "notice":
        return _seconds(value, where)
    if name == "restarts":
        if value not in _YES_NO:
            raise InputError(f"{where}: restarts is yes or no, not {value!r}")
        return _YES_NO[value]
    return value


def _seconds(text: str, where: str) -> float:
    try:
        return float(text.strip().removesuffix("s"))
    except ValueError as error:
        raise InputError(f"{where}: {text!r} is no time in seconds, as in 120s") from error


def longest_prompt_of(text: str) -> tuple[str, int]:
    """A pool and its longest prompt, from `POOL=TOKENS`.

    Raises
    ------
    InputError
        When it is none.
    """
    pool, equals, tokens = text.rpartition("=")
    if not equals or not tokens.strip().isdecimal() or not 1 <= int(tokens) <= 10**9:
        raise InputError(
            f"--longest-prompt {text!r}: write POOL=TOKENS, as in 0=2048 or prefill:h100:tp2=2048"
        )
    return pool.strip(), int(tokens)
