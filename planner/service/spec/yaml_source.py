"""YAML with the line of every value, so that a problem can be pointed at."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType

import yaml

from planner.domain.errors import SpecError

LARGEST_BYTES = 4 * 1024 * 1024
LARGEST_VALUES = 200_000
"""Above this many values (aliases counted each time) a file is refused: a spec has hundreds."""

DEEPEST = 40
"""Deeper nesting is refused: a spec has five levels, a cycle of aliases has no end."""

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlSource:
    """A parsed YAML (or JSON) document and where its values stand.

    Parameters
    ----------
    where : str
        File name, for messages.
    lines : mapping of path to line number
        From 1; keys are paths such as `("slos", 0, "ttft_s")`. Empty for JSON values.
    """

    where: str
    data: Mapping[str, object]
    lines: Mapping[Location, int]

    def place(self, location: Location) -> str:
        """`file:line` of a value, or of the nearest parent that has a line."""
        for length in range(len(location), -1, -1):
            line = self.lines.get(location[:length])
            if line is not None:
                return f"{self.where}:{line}"
        return self.where


def read_yaml(path: Path, *, what: str, hint: str) -> YamlSource:
    """Read one YAML mapping.

    Parameters
    ----------
    what, hint : str
        What the file should be, and what to do when it is missing, for messages.

    Raises
    ------
    SpecError
        When it is missing, unreadable, no YAML mapping, or repeats a key.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise SpecError(f"{path}: too large for {what}")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SpecError(f"{path}: no such file; {hint}") from error
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not a text file; {what} is UTF-8 YAML") from error
    return parse_yaml(text, where=str(path), what=what)


def parse_yaml(text: str, *, where: str, what: str) -> YamlSource:
    """Parse one YAML mapping from text; see `read_yaml`."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(root, yaml.MappingNode):
            raise SpecError(f"{where}: {what} is a YAML mapping of keys to values")
        lines = _lines(root, where)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}" if mark else ""
        raise SpecError(f"{where}{line}: not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{where}: not YAML: {error}") from error
    except RecursionError as error:
        raise SpecError(f"{where}: nested too deeply for {what}") from error
    except ValueError as error:  # such as the date 2026-13-45
        raise SpecError(f"{where}: a value cannot be read: {error}") from error
    return YamlSource(where=where, data=_plain(data), lines=MappingProxyType(lines))


def _lines(root: yaml.Node, where: str) -> dict[Location, int]:
    """Line of every path; refuses repeated keys, cycles and alias bombs."""
    lines: dict[Location, int] = {(): root.start_mark.line + 1}
    stack: list[tuple[yaml.Node, Location]] = [(root, ())]
    while stack:
        node, path = stack.pop()
        for child, key, line in _children(node, where):
            location = (*path, key)
            if isinstance(node, yaml.MappingNode) and location in lines:
                raise SpecError(
                    f"{where}:{line}: `{key}` is given twice (first in line {lines[location]}); "
                    "keep one"
                )
            if len(location) > DEEPEST:
                raise SpecError(
                    f"{where}:{line}: nested deeper than {DEEPEST} levels; does an alias "
                    "contain itself?"
                )
            lines[location] = line
            if len(lines) > LARGEST_VALUES:
                raise SpecError(f"{where}: more than {LARGEST_VALUES} values")
            stack.append((child, location))
    return lines


def _children(node: yaml.Node, where: str) -> Iterator[tuple[yaml.Node, str | int, int]]:
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield child, index, child.start_mark.line + 1
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise SpecError(f"{where}:{line}: keys must be plain words")
            yield child, str(key.value), line


def _plain(data: object) -> dict[str, object]:
    """The same values with string keys and dates as text, as JSON has them."""
    plain = _plain_value(data)
    return plain if isinstance(plain, dict) else {}


def _plain_value(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_value(item) for item in value]
    if isinstance(value, date):
        return value.isoformat()
    return value
