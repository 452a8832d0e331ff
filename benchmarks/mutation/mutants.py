"""Alterations of a package's modules, one each, sampled with a seed.

A place in the code is drawn first and one of its alterations then: else most of a sample would be
of the few places with the most operators. Left out is what changes no behaviour by construction
(type hints) and what no type allows (bit operators between numbers, `is` between values).
"""

import ast
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

FAMILIES = (
    "ReplaceBinaryOperator", "ReplaceComparisonOperator", "ReplaceUnaryOperator", "AddNot",
    "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "NumberReplacer",
    "ZeroIterationForLoop",
)  # fmt: skip
NOISE = ("BitOr", "BitAnd", "BitXor", "Shift", "Invert", "Is", "Pow", "_Mod")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One altered module: `path` in the working tree, its new `source`, and the line altered."""

    path: str
    operator: str
    line: int
    before: str
    after: str
    source: str


def sample(package: Path, count: int, seed: int) -> list[Mutant]:
    """Up to `count` mutants of the modules below `package`, each of another place."""
    rng = random.Random(seed)
    places: dict[tuple[Path, tuple[int, int]], list[tuple[str, int]]] = defaultdict(list)
    for path in sorted(package.rglob("*.py")):
        tree = get_ast(path.read_text())
        for name in _operators():
            operator, occurrence = get_operator(name)(), 0
            for node in ast_nodes(tree):
                for start, _ in operator.mutation_positions(node):
                    places[(path, start)].append((name, occurrence))
                    occurrence += 1
    order = sorted(places)
    rng.shuffle(order)
    found: list[Mutant] = []
    for path, start in order:
        if len(found) == count:
            break
        mutant = _mutant(path, *rng.choice(places[(path, start)]))
        if mutant is not None:
            found.append(mutant)
    return found


def _operators() -> list[str]:
    names = []
    for name in operator_names():
        kind = name.removeprefix("core/")
        inverse = kind.endswith(("_Is_IsNot", "_IsNot_Is"))
        if kind.startswith(FAMILIES) and (inverse or not any(noise in kind for noise in NOISE)):
            names.append(name)
    return names


def _mutant(path: Path, name: str, occurrence: int) -> Mutant | None:
    """The altered module; None where nothing but type hints differs or it does not compile."""
    source = path.read_text()
    altered = mutate_code(source, get_operator(name)(), occurrence)
    if altered is None:
        return None
    try:
        if _behaviour(altered) == _behaviour(source):
            return None
    except SyntaxError:
        return None
    old, new = source.splitlines(), altered.splitlines()
    line = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
    return Mutant(
        path=str(path),
        operator=name.removeprefix("core/"),
        line=line + 1,
        before=old[line].strip(),
        after=new[line].strip(),
        source=altered,
    )


def _behaviour(source: str) -> str:
    """The module's syntax tree without type hints."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(value=None)
    return ast.dump(tree)
