"""A changed spec, without writing another file: `accelerators.h100.inventory=4`."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import yaml

from planner.domain.errors import InputError
from planner.domain.spec import Objective, Spec
from planner.service.spec.file import HINT, spec_from
from planner.service.spec.problems import did_you_mean
from planner.service.spec.yaml_source import YamlSource, read_yaml

RATE, ISL, OSL = "rate", "isl", "osl"
"""Keys that are not of the spec: how many times the forecast's requests, and their lengths."""

_NAMES = ("name", "model", "accelerator", "role", "request_class")
_FACTOR = re.compile(r"x(\d+\.?\d*|\.\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """A changed spec, how many times the requests come, and of how many times the length.

    Parameters
    ----------
    text : str
        As it was asked: `slos.chat.ttft_s=0.8`.
    isl_ratio, osl_ratio : float
        Of prompts and answers.
    """

    text: str
    spec: Spec
    rate_ratio: float
    isl_ratio: float = 1.0
    osl_ratio: float = 1.0

    @property
    def same_requests(self) -> bool:
        """Whether as many requests of the same lengths come."""
        return self.rate_ratio == self.isl_ratio == self.osl_ratio == 1


def what_if(path: Path, text: str, *, allow_estimates: bool = False) -> WhatIf:
    """The spec in a file with one or more changes, separated by commas.

    A key is a path of names and numbers joined by dots; an element of a list is named by its
    place, or by its name, model, accelerator, role or request class. A value is YAML, or `x1.5`
    for so many times what is there; commas within brackets, braces or quotes are the value's own.
    `rate`, `isl` and `osl` are no keys of the spec: they multiply the forecast's requests, and the
    lengths of their prompts and answers.

    Raises
    ------
    InputError
        When a key is not there or a value is none.
    SpecError
        When the changed spec is refused.
    """

    def read(data: Mapping[str, object]) -> Spec:
        source = YamlSource(where=f"{path} with {text}", data=data, lines=MappingProxyType({}))
        return spec_from(source, folder=path.parent, allow_estimates=allow_estimates)

    return what_if_of(read_yaml(path, what="a spec", hint=HINT).data, text, read=read)


def what_if_of(
    content: Mapping[str, object], text: str, *, read: Callable[[Mapping[str, object]], Spec]
) -> WhatIf:
    """The same for the content of a spec.

    Parameters
    ----------
    read : callable
        Makes a spec of changed content.
    """
    data = json.loads(json.dumps(_plain(content)))
    ratios = {RATE: 1.0, ISL: 1.0, OSL: 1.0}
    for change in _changes(text):
        key, equals, value = (part.strip() for part in change.partition("="))
        if not equals or not key or not value:
            raise InputError(
                f"--what-if {text}: `{change}` is no KEY=VALUE, as in budget.usd_per_hour=12, "
                "accelerators.h100.inventory=4, slos.0.ttft_s=x0.8 or rate=x1.5"
            )
        if key in ratios:
            ratios[key] *= _ratio(text, key, value)
        else:
            _change(data, key.split("."), value, text)
    return WhatIf(
        text=text,
        spec=read(data),
        rate_ratio=ratios[RATE],
        isl_ratio=ratios[ISL],
        osl_ratio=ratios[OSL],
    )


def _changes(text: str) -> list[str]:
    """The changes between commas that no bracket, brace or quote encloses."""
    changes, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        else:
            depth += (sign in "[{") - (sign in "]}")
            if sign == "," and depth <= 0:
                changes.append("")
                continue
        changes[-1] += sign
    return changes


def with_objective(spec: Spec, objective: str | None) -> Spec:
    """The spec with another objective; None leaves it."""
    if objective is None:
        return spec
    return replace(spec, planning=replace(spec.planning, objective=Objective(objective)))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value


def _ratio(text: str, key: str, value: str) -> float:
    matched = _FACTOR.fullmatch(value)
    ratio = float(matched.group(1)) if matched else math.nan
    if not 0 < ratio <= 1e6:
        raise InputError(f"--what-if {text}: {key} takes a factor, as in {key}=x1.5, not `{value}`")
    return ratio


def _change(data: object, keys: list[str], value: str, text: str) -> None:
    """Set what a path of keys leads to."""
    at, place = data, "the spec"
    for key in keys[:-1]:
        at, place = _step(at, key, place, text), key
    last = keys[-1]
    if isinstance(at, list):
        at[_index(at, last, place, text)] = _value(None, value, text)
    elif isinstance(at, dict):
        at[last] = _value(at.get(last), value, text)
    else:
        raise InputError(f"--what-if {text}: {place} is a plain value and has no `{last}`")


def _step(at: object, key: str, place: str, text: str) -> object:
    if isinstance(at, list):
        return at[_index(at, key, place, text)]
    if isinstance(at, dict):
        if key not in at:
            at[key] = {}  # a section that was left out: its fields have defaults
        return at[key]
    raise InputError(f"--what-if {text}: {place} is a plain value and has no `{key}`")


def _index(elements: list[object], key: str, place: str, text: str) -> int:
    if key.isdigit() and int(key) < len(elements):
        return int(key)
    named = [
        i
        for i, element in enumerate(elements)
        if isinstance(element, dict) and key in (element.get(name) for name in _NAMES)
    ]
    if len(named) == 1:
        return named[0]
    if named:
        raise InputError(
            f"--what-if {text}: {len(named)} elements of {place} are called `{key}`: name one by "
            f"its number, {', '.join(str(i) for i in named)}"
        )
    names = [
        str(element[name])
        for element in elements
        if isinstance(element, dict)
        for name in _NAMES
        if name in element
    ]
    raise InputError(
        f"--what-if {text}: {place} has no `{key}`{did_you_mean(key, names)}; it has "
        f"{len(elements)} elements, numbered from 0"
    )


def _value(before: object, value: str, text: str) -> object:
    matched = _FACTOR.fullmatch(value)
    if matched is None:
        try:
            return yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--what-if {text}: `{value}` is no YAML value") from error
    if not isinstance(before, (int, float)) or isinstance(before, bool):
        raise InputError(
            f"--what-if {text}: `{value}` multiplies a number, but there is {before!r}: give a "
            "value"
        )
    factor = float(matched.group(1))
    changed = before * factor
    if not isinstance(before, int):
        return changed
    if round(changed) == before and changed != before:
        raise InputError(
            f"--what-if {text}: {factor:g} times {before} is {before} again, in whole numbers: "
            "give the number that you mean"
        )
    return round(changed)
