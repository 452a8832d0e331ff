"""Reads a Containerfile: its instructions by stage."""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    word: str
    rest: str


def stages(path: Path) -> list[list[Instruction]]:
    """What stands before the first FROM, then each stage."""
    found: list[list[Instruction]] = [[]]
    text = re.sub(r"\\\n", " ", path.read_text())
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append(Instruction(word, rest.strip()))
    return found


def the(stage: list[Instruction], word: str) -> str:
    """The last instruction of a kind, which is the one that counts."""
    return [one.rest for one in stage if one.word == word][-1]


def copied(stage: list[Instruction]) -> list[str]:
    """Sources that are copied out of the repository."""
    sources: list[str] = []
    for one in stage:
        if one.word == "COPY" and not one.rest.startswith("--from"):
            sources += one.rest.split()[:-1]
    return sources


def environment(stage: list[Instruction]) -> dict[str, str]:
    """What ENV sets."""
    pairs = " ".join(one.rest for one in stage if one.word == "ENV").split()
    return dict(pair.split("=", 1) for pair in pairs)
