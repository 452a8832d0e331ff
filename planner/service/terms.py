"""The words of the field as Poolwise uses them, from `terms.yaml`."""

import re
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

from pydantic import Field

from planner.domain.errors import InputError
from planner.service.documents.document import Document
from planner.service.spec.yaml_source import parse_yaml

FILE = "terms.yaml"
_MOST_NEAR = 3
_NEAR_RATIO = 0.6


class Term(Document):
    """A word, and what it means here."""

    term: str = Field(description="as it is written in docs and help")
    aliases: list[str] = Field(default_factory=list, description="other words for it")
    means: str
    unit: str | None = Field(default=None, description="null: it is no quantity")
    page: str | None = Field(default=None, description="page of docs/ that says more")
    see: list[str] = Field(default_factory=list, description="terms that belong to it")


class TermList(Document):
    """All terms."""

    terms: list[Term]


@cache
def terms() -> tuple[Term, ...]:
    """All of them, in the order of the alphabet."""
    text = files("planner.service").joinpath(FILE).read_text(encoding="utf-8")
    data = parse_yaml(text, where=FILE, what="a list of terms").data
    read = TermList.model_validate(data).terms
    return tuple(sorted(read, key=lambda term: term.term.lower()))


def find_term(word: str) -> Term:
    """The term that a word is, or is another name of; case, hyphens and plurals do not count.

    Raises
    ------
    InputError
        When there is none; names those that are near.
    """
    names = {_plain(name): term for term in terms() for name in (term.term, *term.aliases)}
    asked = _plain(word)
    found = names.get(asked) or names.get(asked.removesuffix("s"))
    if found is not None:
        return found
    near = [names[name].term for name in names if len(asked) > 2 and asked in name.split()]
    near += [
        names[name].term
        for name in get_close_matches(asked, names, n=_MOST_NEAR, cutoff=_NEAR_RATIO)
    ]
    told = list(dict.fromkeys(near))[:_MOST_NEAR]
    hint = f"did you mean {', '.join(told)}? " if told else ""
    raise InputError(f"no term {word!r} is known; {hint}`poolwise explain` lists all of them")


def _plain(name: str) -> str:
    return " ".join(re.findall(r"[a-z0-9:/]+", name.lower()))
