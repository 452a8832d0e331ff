"""The part of the Common Expression Language that rules of custom resources here need.

Fields, `has()`, `size()`, `in`, comparisons, arithmetic, `!`, `&&`, `||`, `?:`, literals, and the
macros `all`, `exists` and `exists_one` on lists. Anything else is a ValueError naming the rule.
"""

import re
from typing import Any

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<string>'[^']*'|\"[^\"]*\")|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<op>&&|\|\||==|!=|<=|>=|[-+*/%!<>()\[\].,?:]))"
)
_BINARY = (("||",), ("&&",), ("==", "!=", "<=", ">=", "<", ">", "in"), ("+", "-"), ("*", "/", "%"))


def evaluate(rule: str, names: dict[str, Any]) -> Any:
    """The value of a rule where the names stand for these values."""
    tokens = _tokens(rule)
    tree, end = _conditional(tokens, 0)
    if end != len(tokens):
        raise ValueError(f"rule {rule!r}: cannot read from {tokens[end]!r} on")
    return _value(tree, names)


def _tokens(rule: str) -> list[str]:
    found = []
    position = 0
    text = rule.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"rule {rule!r}: unknown character at {position}")
        found.append(match[0].strip())
        position = match.end()
    return found


def _at(tokens: list[str], position: int) -> str:
    return tokens[position] if position < len(tokens) else ""


def _conditional(tokens: list[str], position: int) -> tuple[Any, int]:
    test, position = _binary(tokens, position, 0)
    if _at(tokens, position) != "?":
        return test, position
    yes, position = _conditional(tokens, position + 1)
    no, position = _conditional(tokens, position + 1)
    return ("?", test, yes, no), position


def _binary(tokens: list[str], position: int, level: int) -> tuple[Any, int]:
    if level == len(_BINARY):
        return _unary(tokens, position)
    left, position = _binary(tokens, position, level + 1)
    while _at(tokens, position) in _BINARY[level]:
        operator = tokens[position]
        right, position = _binary(tokens, position + 1, level + 1)
        left = (operator, left, right)
    return left, position


def _unary(tokens: list[str], position: int) -> tuple[Any, int]:
    if _at(tokens, position) in {"!", "-"}:
        operand, end = _unary(tokens, position + 1)
        return ("not" if tokens[position] == "!" else "negative", operand), end
    return _postfix(tokens, *_primary(tokens, position))


def _primary(tokens: list[str], position: int) -> tuple[Any, int]:
    token = _at(tokens, position)
    if token == "(":
        tree, position = _conditional(tokens, position + 1)
        return tree, position + 1
    if token == "[":
        items, position = _arguments(tokens, position, "]")
        return ("list", items), position
    if token[:1] in {"'", '"'}:
        return ("literal", token[1:-1]), position + 1
    if token[:1].isdigit():
        return ("literal", float(token) if "." in token else int(token)), position + 1
    if token in {"true", "false", "null"}:
        return ("literal", {"true": True, "false": False, "null": None}[token]), position + 1
    if _at(tokens, position + 1) == "(":
        arguments, end = _arguments(tokens, position + 1, ")")
        return ("call", token, None, arguments), end
    return ("name", token), position + 1


def _arguments(tokens: list[str], position: int, closing: str) -> tuple[list[Any], int]:
    """The trees between an opening bracket at `position` and the closing one."""
    found = []
    position += 1
    while _at(tokens, position) != closing:
        tree, position = _conditional(tokens, position)
        found.append(tree)
        if _at(tokens, position) == ",":
            position += 1
    return found, position + 1


def _postfix(tokens: list[str], tree: Any, position: int) -> tuple[Any, int]:
    while _at(tokens, position) in {".", "["}:
        if tokens[position] == "[":
            index, position = _conditional(tokens, position + 1)
            tree, position = ("index", tree, index), position + 1
            continue
        name = tokens[position + 1]
        if _at(tokens, position + 2) == "(":
            arguments, position = _arguments(tokens, position + 2, ")")
            tree = ("call", name, tree, arguments)
        else:
            tree, position = ("field", tree, name), position + 2
    return tree, position


def _value(tree: Any, names: dict[str, Any]) -> Any:
    match tree:
        case ("literal", value):
            return value
        case ("list", items):
            return [_value(item, names) for item in items]
        case ("name", name):
            return names[name]
        case ("field", owner, name):
            return _value(owner, names)[name]
        case ("index", owner, index):
            return _value(owner, names)[_value(index, names)]
        case ("not", operand):
            return not _value(operand, names)
        case ("negative", operand):
            return -_value(operand, names)
        case ("?", test, yes, no):
            return _value(yes if _value(test, names) else no, names)
        case ("call", name, owner, arguments):
            return _call(name, owner, arguments, names)
        case (operator, left, right):
            return _operate(operator, left, right, names)
    raise ValueError(f"cannot evaluate {tree!r}")


def _operate(operator: str, left: Any, right: Any, names: dict[str, Any]) -> Any:
    if operator in {"&&", "||"}:
        first = _value(left, names)
        return (
            (first and _value(right, names))
            if operator == "&&"
            else (first or _value(right, names))
        )
    a, b = _value(left, names), _value(right, names)
    actions = {
        "==": lambda: a == b,
        "!=": lambda: a != b,
        "<=": lambda: a <= b,
        ">=": lambda: a >= b,
        "<": lambda: a < b,
        ">": lambda: a > b,
        "in": lambda: a in b,
        "+": lambda: a + b,
        "-": lambda: a - b,
        "*": lambda: a * b,
        "/": lambda: a // b,
        "%": lambda: a % b,
    }
    return actions[operator]()


def _call(name: str, owner: Any, arguments: list[Any], names: dict[str, Any]) -> Any:
    if name == "has":
        _, holder, field = arguments[0]
        return field in _value(holder, names)
    if name == "size":
        return len(_value(owner if owner is not None else arguments[0], names))
    if name in {"all", "exists", "exists_one"}:
        (_, variable), condition = arguments
        found = [
            bool(_value(condition, {**names, variable: item})) for item in _value(owner, names)
        ]
        return {"all": all(found), "exists": any(found), "exists_one": sum(found) == 1}[name]
    raise ValueError(f"function {name!r} of a rule is not known here")
