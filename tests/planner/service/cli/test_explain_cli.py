"""`poolwise explain`: the words that docs and help use, from one file."""

import json
import re
from pathlib import Path

import pytest
import typer

import planner.domain
from planner.domain.errors import InputError
from planner.service.cli.main import app
from planner.service.spec.document import spec_schema
from planner.service.terms import find_term, terms

ROOT = Path(planner.domain.__file__).parents[2]
DOCS = ROOT / "docs"
_EVERYBODYS = """
AMD AND API ARIMA ASCII BF16 CA CD CDF CI CLI CN CP CPU CRC CRD CSV CUDA CUSUM DCGM DELETE DNS
EOF EP EPYC FLOP FP16 FP8 GB GET GLOP HEAD HEX HGX HH HMAC HTML HTTP HTTPS ID INT4 INT8 IO IP
IPC ISCA ISO JSON JSONL KB KIND KUBECONFIG LICENSE LLM LLVM MANAGER MB MISSED MM MPI NAME NFS
NIC NOT NPZ NTP NUMA NVIDIA OOM OPT OR OSDI PATCH PCI PEM PID POST PRO PUT RAM RDMA README REST
RFC SAN SAT SCIP SHA SHA256 SI SIGKILL SIGSTOP SIGTERM SQL SVG SXM TB TCP TLS TTL UI UNAVAILABLE
UNPROVEN URI URL URN USD UTC UTF UUID XML YAML ZMQ
"""
GENERAL = set(_EVERYBODYS.split())
"""Abbreviations of everybody's; those of the field are terms."""
ACCELERATOR = re.compile(r"[ABHLRT]\d+[A-Z]?|GB\d+|MI\d+X?|RTX|SXM\d|[DT]P\d+|M/[A-Z]/\w+")
ABBREVIATION = re.compile(r"(?<![\w$./<_-])[A-Z][A-Z0-9]+s?(?![\w/_.=-]*[\w_])")


def of_the_field(text):
    """Abbreviations in prose: without code, commands and addresses."""
    text = re.sub(r"```.*?```", " ", text, flags=re.DOTALL)
    text = re.sub(r"`[^`]*`|https?://\S+", " ", text)
    found = {word.rstrip("s") for word in ABBREVIATION.findall(text)}
    return {w for w in found if w not in GENERAL and not ACCELERATOR.fullmatch(w)}


def helps(command, path=""):
    """The help of every command, by its name."""
    yield path, command.help or ""
    for name, below in getattr(command, "commands", {}).items():
        yield from helps(below, f"{path} {name}".strip())


def known(word):
    try:
        find_term(word)
    except InputError:
        return False
    return True


def test_every_word_of_the_glossary_is_explained():
    glossary = planner.domain.__doc__.partition("--------")[2]
    words = [w for line in re.findall(r"^(\S.*)$", glossary, re.M) for w in line.split(", ")]
    assert len(words) > 25
    assert [word for word in words if not known(word)] == []


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_every_abbreviation_of_the_docs_is_explained(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert sorted(w for w in of_the_field(text) if not known(w)) == []


def test_every_abbreviation_of_the_help_and_the_spec_is_explained():
    told = dict(helps(typer.main.get_command(app)))
    told["spec"] = json.dumps(spec_schema())
    assert len(told) > 40
    unknown = {path: [w for w in of_the_field(text) if not known(w)] for path, text in told.items()}
    assert {path: words for path, words in unknown.items() if words} == {}


def plain(text):
    return re.sub(r"[_-]", " ", text.lower())


def test_every_term_is_used_where_people_read():
    pages = [path.read_text(encoding="utf-8") for path in (*DOCS.glob("*.md"), ROOT / "README.md")]
    text = plain(" ".join(pages) + json.dumps(spec_schema()))
    told = [t.term for t in terms() if any(plain(n) in text for n in (t.term, *t.aliases))]
    assert [t.term for t in terms() if t.term not in told] == []


def test_terms_lead_to_terms_and_pages_that_are_there():
    named = [name.lower() for t in terms() for name in (t.term, *t.aliases)]
    assert len(named) == len(set(named))
    heads = {t.term for t in terms()}
    for t in terms():
        assert set(t.see) <= heads, t.term
        assert t.page is None or (DOCS / t.page).is_file(), t.term
        assert t.means.endswith("."), t.term


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("goodput", "goodput"),
        ("time to first token", "TTFT"),
        ("Cells", "cell"),
        ("ttft_s", "TTFT"),
        ("scale-down", "scale-down"),
    ],
)
def test_a_term_is_found_by_its_other_names(poolwise, asked, found):
    status, out, _ = poolwise("explain", *asked.split())
    assert (status, re.split(r" \(|,|\n", out)[0]) == (0, found)
    status, out, _ = poolwise("explain", asked, "--json")
    assert (status, json.loads(out)["term"]) == (0, found)


@pytest.mark.parametrize(("asked", "near"), [("goodputt", "goodput"), ("atainment", "attainment")])
def test_an_unknown_term_suggests_near_ones(poolwise, asked, near):
    status, _, err = poolwise("explain", asked)
    assert (status, f"did you mean {near}" in err) == (2, True)
    status, _, err = poolwise("explain", "xyzzy")
    assert (status, "did you mean" in err, "lists all" in err) == (2, False, True)


def test_without_a_term_all_are_listed(poolwise):
    status, out, _ = poolwise("explain")
    assert (status, "goodput" in out, "warm start" in out) == (0, True, True)
