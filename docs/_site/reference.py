"""The reference, as Markdown, from what the code says of itself."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import typer

import planner.service.settings as settings_module
from planner.service.api.app import create_app
from planner.service.api.rights import RIGHTS
from planner.service.api.service import Service
from planner.service.cli.main import app as commands
from planner.service.hosting.registry import Registry
from planner.service.spec.document import spec_schema
from planner.service.store.store import open_store
from planner.service.terms import terms

MADE = "*Made from the code when these pages were built.*"


def pages() -> dict[str, str]:
    """Path below `docs/` -> its text."""
    return {
        "reference/cli.md": cli(),
        "reference/rest.md": rest(),
        "reference/spec.md": spec(),
        "reference/settings.md": environment(),
        "reference/terms.md": vocabulary(),
    }


def cli() -> str:
    """Every command with its arguments and options."""
    root = typer.main.get_command(commands)
    parts = [
        "# The command line",
        MADE,
        "Exit status: 0 done, 1 failed, 2 bad input, 130 interrupted.",
    ]
    for names, command in _commands(root, ()):
        parts.append(f"## poolwise {' '.join(names)}")
        parts.append(_prose(command.help))
        rows = [_parameter(p) for p in command.params if not getattr(p, "hidden", False)]
        if rows:
            parts.append(table(("argument or option", "what it does"), rows))
        if command.epilog:
            parts.append(_epilog(command.epilog))
    return _joined(parts)


def _commands(
    command: click.Command, names: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield names, command
        return
    for name, child in sorted(children.items()):
        if not child.hidden:
            yield from _commands(child, (*names, name))


def _parameter(parameter: click.Parameter) -> tuple[str, str]:
    """The cells of one row: how it is written, what its help says, and its default."""
    written = parameter.opts + parameter.secondary_opts
    if parameter.param_type_name == "argument":
        return f"`{(parameter.metavar or parameter.name or '').upper()}`", _line(parameter.help)
    told = _line(getattr(parameter, "help", None))
    default = parameter.default
    if default not in (None, "", False, True, [], ()) and not callable(default):
        told += f" (default: `{getattr(default, 'value', default)}`)"
    return ", ".join(f"`{one}`" for one in written), told


def rest() -> str:
    """Every route: who may, what goes in, what comes out."""
    document = _openapi()
    schemas = document["components"]["schemas"]
    parts = [
        "# REST routes",
        MADE,
        "How they are used: [the REST API](../api.md). The document itself, with examples that run:"
        " `GET /openapi.json`. Errors are `application/problem+json`.",
    ]
    used: set[str] = set()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts += _route(f"{method.upper()} {path}", operation)
            used |= set(_references(operation))
    parts.append("## Documents")
    for name in sorted(_closure(used, schemas)):
        parts += _schema(name, schemas[name], level=3)
    return _joined(parts)


def _route(route: str, operation: Mapping) -> list[str]:
    role = RIGHTS.get(route)
    rows = [
        (f"`{p['name']}`", p["in"], _line(p.get("description")))
        for p in operation.get("parameters", ())
    ]
    answers = [
        (code, _line(answer.get("description")), ", ".join(_linked(n) for n in _references(answer)))
        for code, answer in sorted(operation["responses"].items())
        if code < "400"
    ]
    asked = ", ".join(_linked(n) for n in _references(operation.get("requestBody", {})))
    return [
        f"## {route}",
        _prose(operation.get("description") or operation.get("summary")),
        f"Least role: {role.value if role else 'none, open'}."
        + (f" Body: {asked}." if asked else ""),
        table(("parameter", "in", "what it is"), rows) if rows else "",
        table(("status", "when", "document"), answers),
    ]


def _openapi() -> Mapping:
    with TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{Path(folder) / 'reference.db'}")
        try:
            return create_app(Service(registry=Registry(), store=store, lease="docs")).openapi()
        finally:
            store.close()


def spec() -> str:
    """Every field of a spec."""
    schema = spec_schema()
    parts = [
        "# The spec",
        MADE,
        "YAML. As JSON Schema: `poolwise validate --schema`. A first one: `poolwise init`.",
        *_schema("Spec", schema, level=2),
    ]
    for name, part in sorted(schema["$defs"].items()):
        parts += _schema(name, part, level=2)
    return _joined(parts)


def environment() -> str:
    """The variables of the environment, as the settings' docstring lists them."""
    parts = [
        "# Settings",
        MADE,
        "Read once, when a command starts.",
        table(("variable", "meaning"), _variables()),
    ]
    return _joined(parts)


def _variables() -> list[tuple[str, str]]:
    rows: list[list[str]] = []
    for line in (settings_module.__doc__ or "").splitlines():
        found = re.match(r"(POOLWISE_\w+)\s*(.*)", line)
        if found and "=" not in line[:3] and not line.startswith("POOLWISE_WEBHOOK_URL, "):
            rows.append([f"`{found[1]}`", found[2]])
        elif rows and line.startswith("  "):
            rows[-1][1] = f"{rows[-1][1]} {line.strip()}".strip()
    return [(name, cell(text)) for name, text in rows]


def vocabulary() -> str:
    """The words, as `poolwise explain` says them."""
    parts = ["# Vocabulary", MADE, "On the command line: `poolwise explain TERM`."]
    for term in terms():
        also = f" (also: {', '.join(term.aliases)})" if term.aliases else ""
        unit = f" Unit: {term.unit}." if term.unit else ""
        page = f" More: [{term.page}](../{term.page})." if term.page else ""
        parts.append(f"**{term.term}**{also}: {term.means}{unit}{page}")
    return _joined(parts)


def _schema(name: str, schema: Mapping, *, level: int) -> list[str]:
    """One object or set of values of a JSON Schema."""
    heading = f"{'#' * level} {name}"
    told = _prose(schema.get("description"))
    if "enum" in schema:
        return [
            heading,
            told,
            "One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + ".",
        ]
    needed = set(schema.get("required", ()))
    rows = [
        (f"`{field}`" + (" (needed)" if field in needed else ""), _type(part), _meaning(part))
        for field, part in schema.get("properties", {}).items()
    ]
    return [heading, told, table(("field", "type", "what it is"), rows) if rows else ""]


def _meaning(part: Mapping) -> str:
    default = part.get("default")
    told = _line(part.get("description"))
    return told + (f" (default: `{default}`)" if default not in (None, [], {}, "") else "")


def _type(part: Mapping) -> str:
    if "$ref" in part:
        return _linked(part["$ref"].rsplit("/", 1)[1])
    if "anyOf" in part or "oneOf" in part:
        kinds = (_type(one) for one in part.get("anyOf") or part["oneOf"])
        return " or ".join(kind for kind in dict.fromkeys(kinds) if kind != "null")
    if part.get("type") == "array":
        return f"list of {_type(part.get('items', {}))}"
    if "const" in part:
        return f"`{part['const']}`"
    return str(part.get("type", "any"))


def _references(part: object) -> Iterator[str]:
    """Names of the schemas that a part of the document points at, each once."""
    text = re.findall(r"#/(?:components/schemas|\$defs)/([\w-]+)", repr(part))
    yield from dict.fromkeys(text)


def _closure(names: Iterable[str], schemas: Mapping[str, Mapping]) -> set[str]:
    found, open_ = set(), list(names)
    while open_:
        name = open_.pop()
        if name not in found and name in schemas:
            found.add(name)
            open_ += _references(schemas[name])
    return found


def _linked(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def cell(text: str) -> str:
    """Text that does not end a cell."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def _line(text: str | None) -> str:
    return cell(" ".join((text or "").split()))


def _prose(text: str | None) -> str:
    return (text or "").replace("\b", "").strip()


def _epilog(text: str) -> str:
    """What stands below the options; commands in it as a block to copy."""
    blocks: list[str] = []
    for paragraph in re.split(r"\n\s*\n", _prose(text)):
        if not paragraph.lstrip().startswith(("poolwise ", "$ ")):
            blocks.append(paragraph)
        elif blocks and blocks[-1].endswith("```"):
            blocks[-1] = f"{blocks[-1][:-3]}{paragraph.strip()}\n```"
        else:
            blocks.append(f"```console\n{paragraph.strip()}\n```")
    return "\n\n".join(blocks)


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
