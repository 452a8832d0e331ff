"""Broken variants of good files: of what they hold, of how it is written, of their bytes."""

import copy
import json
import random
import re
from collections.abc import Iterator

import yaml

NAN, INFINITY = float("nan"), float("inf")

ODD_VALUES: tuple[object, ...] = (
    None,
    True,
    False,
    "",
    " ",
    "x",
    "nan",
    "1e400",
    "-1",
    "9" * 400,
    "\x00",
    "\u202e\ud7ff",
    "2026-13-45T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00-23:59",
    -1,
    0,
    1,
    -0.0,
    0.5,
    1e-320,
    1e308,
    -1e308,
    10**30,
    2**63,
    NAN,
    INFINITY,
    -INFINITY,
    [],
    {},
    [[]],
    [None],
    {"": None},
)
"""Values that some field of some document does not expect."""

ODD_WORDS = ("", "nan", "inf", "-inf", "-1", "0", "1e400", "x", "1,5", "9" * 40, "\u0661", '"')
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")

Path = tuple[object, ...]


def broken_tree(tree: object, rng: random.Random) -> object:
    """A copy with one to three places altered: another value, gone, twice, renamed, nested."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            return rng.choice(ODD_VALUES)
        owner, key = rng.choice(places)
        _alter(owner, key, rng)
    return tree


def broken_text(text: str, rng: random.Random) -> str:
    """Lines or words altered."""
    lines = text.splitlines(keepends=True)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines)) if lines else 0
        what = rng.randrange(6)
        if not lines or what == 0:
            lines.insert(at, rng.choice(lines or ["x\n"]))
        elif what == 1:
            del lines[at]
        elif what in (2, 3, 4):
            lines[at] = _with_odd_number(lines[at], rng)
        else:
            cut = rng.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:cut] + rng.choice((*ODD_WORDS, "\n", "\x00", ",,", "{", "#"))
    return "".join(lines)


def broken_bytes(content: bytes, rng: random.Random) -> bytes:
    """Cut off, with other bytes in it, or with a part twice."""
    out, what = bytearray(content), rng.randrange(4)
    at = rng.randrange(len(out) + 1)
    if what == 0:
        del out[at:]
    elif what == 1:
        for _ in range(rng.choice((1, 4, 16))):
            out[rng.randrange(len(out))] = rng.randrange(256)
    elif what == 2:
        out[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 8, 64))))
    else:
        end = min(at + rng.randrange(1, 200), len(out))
        out[at:at] = out[at:end]
    return bytes(out)


def broken_json(content: bytes, rng: random.Random) -> bytes:
    """Of a JSON document, mostly what it holds."""
    if rng.random() < 0.2:
        return broken_bytes(content, rng)
    return json.dumps(broken_tree(json.loads(content), rng)).encode("utf-8", "surrogatepass")


def broken_yaml(content: bytes, rng: random.Random) -> bytes:
    """Of a YAML document, mostly what it holds."""
    if rng.random() < 0.2:
        return broken_bytes(content, rng)
    tree = broken_tree(yaml.safe_load(content), rng)
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=rng.random() < 0.5).encode()


def broken_lines(content: bytes, rng: random.Random) -> bytes:
    """Of a table or of other lines of text."""
    if rng.random() < 0.2:
        return broken_bytes(content, rng)
    return broken_text(content.decode(), rng).encode("utf-8", "surrogatepass")


def broken_json_lines(content: bytes, rng: random.Random) -> bytes:
    """Of JSON documents, one a line."""
    if rng.random() < 0.3:
        return broken_lines(content, rng)
    lines = content.splitlines()
    at = rng.randrange(len(lines))
    lines[at] = json.dumps(broken_tree(json.loads(lines[at]), rng)).encode()
    return b"\n".join(lines) + b"\n"


def _places(tree: object) -> Iterator[tuple[dict[object, object] | list[object], object]]:
    items: Iterator[tuple[object, object]] = iter(())
    if isinstance(tree, dict):
        items = iter(tree.items())
    elif isinstance(tree, list):
        items = iter(enumerate(tree))
    for key, value in items:
        yield tree, key  # type: ignore[misc]
        yield from _places(value)


def _alter(owner: dict[object, object] | list[object], key: object, rng: random.Random) -> None:
    value, what = owner[key], rng.randrange(10)  # type: ignore[index]
    if what == 0:
        del owner[key]  # type: ignore[arg-type]
    elif what == 1 and isinstance(owner, list):
        owner.append(copy.deepcopy(value))
    elif what == 1:
        owner[f"{key}{rng.choice(('x', ' ', 's'))}"] = owner.pop(key)  # type: ignore[call-overload]
    elif what == 2:
        owner[key] = [value]  # type: ignore[index]
    elif what == 3:
        owner[key] = {"x": value}  # type: ignore[index]
    elif what == 4 and isinstance(value, int | float) and not isinstance(value, bool):
        owner[key] = value * rng.choice((-1, 1e-9, 1e9, 1e30))  # type: ignore[index]
    elif what == 5:
        owner[key] = str(value)  # type: ignore[index]
    else:
        owner[key] = copy.deepcopy(rng.choice(ODD_VALUES))  # type: ignore[index]


def _with_odd_number(line: str, rng: random.Random) -> str:
    found = list(_NUMBER.finditer(line))
    if not found:
        return line
    one = rng.choice(found)
    return line[: one.start()] + rng.choice(ODD_WORDS) + line[one.end() :]
