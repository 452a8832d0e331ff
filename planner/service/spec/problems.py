"""Form errors of the spec as sentences: where, what is wrong, what to do."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from planner.service.spec.yaml_source import Location, YamlSource

_IN_YAML = {
    "a valid dictionary": "a mapping (`name: value` lines)",
    "a valid list": "a list",
    "a valid string": "text",
    "a valid boolean": "true or false",
    "a valid tuple": "a list",
}
_WORDS = re.compile("|".join(_IN_YAML))
_MILLISECONDS = re.compile(r"^(?P<stem>.+)_ms$")


def form_problems(
    error: ValidationError, source: YamlSource, document: type[BaseModel]
) -> tuple[str, ...]:
    """One sentence per problem, in the order of the lines.

    Parameters
    ----------
    error : ValidationError
        What pydantic found.
    source : YamlSource
        For the lines.
    document : type of BaseModel
        What was validated, for the names of known fields.
    """
    found: dict[Location, tuple[int, str]] = {}
    problems = error.errors(include_url=False)
    meant = {_meant(p, document) for p in problems if p["type"] == "extra_forbidden"}
    for problem in problems:
        location = _location(problem["loc"], source)
        if problem["type"] == "missing" and location in meant:
            continue  # a misspelt field is one problem, not two
        place = source.place(location)
        line = source.lines.get(location, 0)
        found.setdefault(location, (line, f"{place}: {_sentence(problem, location, document)}"))
    return tuple(text for _, text in sorted(found.values()))


def did_you_mean(name: str, known: Iterator[str] | list[str] | tuple[str, ...]) -> str:
    """`; did you mean X?` or the list of what is known."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean `{near[0]}`?"
    return f"; known: {', '.join(names)}" if names else ""


def dotted(location: Location) -> str:
    """A path for people, as in `slos[0].ttft_s`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def _location(loc: tuple[int | str, ...], source: YamlSource) -> Location:
    """The part of pydantic's location that exists in the file, plus a missing field's name.

    Members of unions add their type to the location (`config.str`), which is not in the file.
    """
    kept: list[str | int] = []
    data: object = source.data
    for part in loc:
        if isinstance(data, dict) and isinstance(part, str):
            kept.append(part)
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            kept.append(part)
            data = data[part]
        else:
            break
    return tuple(kept)


def _sentence(problem: ErrorDetails, location: Location, document: type[BaseModel]) -> str:
    field = dotted(location)
    if problem["type"] == "extra_forbidden":
        return _unknown_field(location, document)
    if problem["type"] == "missing":
        return f"{field} is missing: add it"
    if problem["type"] == "literal_error" and location == ("apiVersion",):
        return "apiVersion must be poolwise/v1, the only version that this Poolwise reads"
    if problem["type"] == "value_error" and isinstance(problem.get("input"), dict):
        said = problem["msg"].removeprefix("Value error, ")  # fields that do not go together
        return f"{field}: {said}" if field else said
    message = _WORDS.sub(lambda found: _IN_YAML[found[0]], problem["msg"])
    message = message[0].lower() + message[1:]
    return f"{field}: {message}, got {_short(problem.get('input'))}"


def _unknown_field(location: Location, document: type[BaseModel]) -> str:
    name = str(location[-1])
    known = _known(document, location[:-1])
    within = f" in {dotted(location[:-1])}" if location[:-1] else ""
    match = _MILLISECONDS.match(name)
    if match and f"{match['stem']}_s" in known:
        return (
            f"unknown field `{name}`{within}: times are in seconds, not milliseconds; write "
            f"`{match['stem']}_s` and divide the value by 1000"
        )
    return f"unknown field `{name}`{within}{did_you_mean(name, known)}"


def _meant(problem: ErrorDetails, document: type[BaseModel]) -> Location:
    """Where the field stands that an unknown field was probably meant to be."""
    *parent, name = problem["loc"]
    known = _known(document, tuple(parent))
    match = _MILLISECONDS.match(str(name))
    if match and f"{match['stem']}_s" in known:
        return (*parent, f"{match['stem']}_s")
    return (*parent, *get_close_matches(str(name), known, n=1, cutoff=0.6))


def _known(document: type[BaseModel], location: Location) -> list[str]:
    owner = _owner(document, location)
    return [f.alias or key for key, f in owner.model_fields.items()] if owner else []


def _owner(document: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The model class at a location of the document."""
    owner: type[BaseModel] | None = document
    for part in location:
        if owner is None:
            return None
        if isinstance(part, int):
            continue
        field = next((f for k, f in owner.model_fields.items() if part in (k, f.alias)), None)
        owner = next(_models_in(field.annotation), None) if field else None
    return owner


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    if get_origin(annotation) is not None:
        for argument in get_args(annotation):
            yield from _models_in(argument)


def _short(value: object) -> str:
    """As it stands in the file."""
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
