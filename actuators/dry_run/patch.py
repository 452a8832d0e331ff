"""A patch for `git apply` that changes the counts in kept manifests, and nothing else."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path

import yaml

from actuators.dry_run.counts import TargetCount
from actuators.kinds import count_path
from planner.domain.errors import InputError
from planner.domain.target import CountTarget

_KUSTOMIZED = frozenset({"Deployment", "StatefulSet"})
"""Kinds that kustomize's `replicas:` sets."""
_KUSTOMIZATION = dict.fromkeys(("kustomization.yaml", "kustomization.yml"), "Kustomization")
"""Files whose kind need not be written in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A number in a file: where it starts and ends, in characters."""

    path: Path
    start: int
    end: int


def render_patch(counts: Sequence[TargetCount], folder: Path) -> str:
    """Write the change as a unified diff with paths from the root of the repository.

    Every place that states the count of a target is changed: the manifest by kind and name, a
    partial one of an overlay, an entry of kustomize's `replicas:`. Without a repository around
    it, paths start at `folder`. Empty when every count is as planned already.

    Raises
    ------
    InputError
        When a file is no YAML, a target is not found or states no count, or its count is not
        written as a plain number; nothing is returned then.
    """
    if not folder.is_dir():
        raise InputError(f"--manifests {folder} is no folder")
    texts = {path: _read(path) for path in _yaml_files(folder)}
    documents = {path: _compose(path, text) for path, text in texts.items()}
    edits: dict[Path, dict[tuple[int, int], str]] = {}
    for count in counts:
        found = [f for path, nodes in documents.items() for f in _find(path, nodes, count.target)]
        if not found:
            raise InputError(
                f"no file under {folder} states a count of {count.target.label}; write its "
                "replicas into the manifest once, then it can be patched"
            )
        for place in found:
            old = texts[place.path][place.start : place.end]
            if not (old.isascii() and old.isdigit()):
                line = texts[place.path].count("\n", 0, place.start) + 1
                raise InputError(
                    f"{place.path}:{line}: the count of {count.target.label} is written as "
                    f"{old!r}; write a plain number, so that it can be patched"
                )
            _note(edits.setdefault(place.path, {}), place, count)
    root = _root(folder)
    return "".join(_unified(path, texts[path], edits[path], root) for path in sorted(edits))


def _note(edits: dict[tuple[int, int], str], place: _Found, count: TargetCount) -> None:
    """Keep an edit; two targets cannot want one place to be different."""
    new = edits.setdefault((place.start, place.end), str(count.planned))
    if new != str(count.planned):
        raise InputError(
            f"{place.path}: one count would be both {new} and {count.planned}, the latter for "
            f"{count.target.label}: give the targets their namespaces"
        )


def _yaml_files(folder: Path) -> list[Path]:
    found = (p for end in ("*.yaml", "*.yml") for p in folder.rglob(end))
    inside = (p for p in found if ".git" not in p.relative_to(folder).parts)
    return sorted(p for p in inside if p.is_file() and not p.is_symlink())


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def _compose(path: Path, text: str) -> list[yaml.Node]:
    try:
        return [node for node in yaml.compose_all(text, yaml.SafeLoader) if node is not None]
    except yaml.YAMLError as error:
        reason = str(error).replace("\n", " ")
        raise InputError(f"{path} is no YAML that can be read: {reason}") from error


def _find(path: Path, nodes: Sequence[yaml.Node], target: CountTarget) -> Iterator[_Found]:
    for node in nodes:
        for document in _objects(node):
            kind = _scalar(_at(document, ("kind",)))
            kind = kind or _KUSTOMIZATION.get(path.name)
            if kind == "Kustomization" and target.kind in _KUSTOMIZED:
                entry = _at(document, ("replicas", f"[{target.name}]", "count"))
            elif kind == target.kind and _is_named(document, target):
                version = _scalar(_at(document, ("apiVersion",))) or target.api_version
                entry = _at(document, count_path(target.kind, version, target.part))
            else:
                continue
            if entry is not None:
                yield _Found(path=path, start=entry.start_mark.index, end=entry.end_mark.index)


def _objects(node: yaml.Node) -> Iterator[yaml.Node]:
    """A document, or the items of a List."""
    items = _at(node, ("items",))
    if _scalar(_at(node, ("kind",))) == "List" and isinstance(items, yaml.SequenceNode):
        yield from items.value
    else:
        yield node


def _is_named(document: yaml.Node, target: CountTarget) -> bool:
    namespace = _scalar(_at(document, ("metadata", "namespace")))
    here = None in (namespace, target.namespace) or namespace == target.namespace
    return here and _scalar(_at(document, ("metadata", "name"))) == target.name


def _at(node: yaml.Node | None, path: Sequence[str]) -> yaml.Node | None:
    """The node at a path; `[name]` is the element of a list with that name."""
    for key in path:
        if key.startswith("["):
            elements = node.value if isinstance(node, yaml.SequenceNode) else []
            named = (e for e in elements if _scalar(_at(e, ("name",))) == key[1:-1])
            node = next(named, None)
        elif isinstance(node, yaml.MappingNode):
            node = next((value for k, value in node.value if k.value == key), None)
        else:
            return None
    return node


def _scalar(node: yaml.Node | None) -> str | None:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else None


def _root(folder: Path) -> Path:
    """The repository around a folder, or the folder."""
    here = folder.resolve()
    return next((p for p in (here, *here.parents) if (p / ".git").exists()), here)


def _unified(path: Path, text: str, edits: dict[tuple[int, int], str], root: Path) -> str:
    name = path.resolve().relative_to(root).as_posix()
    if any(c in name for c in '"\\\n\t'):
        raise InputError(f"{path}: git quotes such a file name; rename it, so that it is patched")
    changed = text
    for (start, end), number in sorted(edits.items(), reverse=True):
        changed = changed[:start] + number + changed[end:]
    if changed == text:
        return ""
    blank = "\t" if " " in name else ""
    lines = unified_diff(
        _lines(text),
        _lines(changed),
        f"a/{name}{blank}",
        f"b/{name}{blank}",
        lineterm="\n",
    )
    whole = (ln if ln.endswith("\n") else f"{ln}\n\\ No newline at end of file\n" for ln in lines)
    return f"diff --git a/{name} b/{name}\n" + "".join(whole)


def _lines(text: str) -> list[str]:
    """Lines as git counts them: only a line feed ends one."""
    lines = text.split("\n")
    return [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
