"""The catalogue of accelerators as YAML: schema `poolwise/accelerators/v1`.

One file is shipped; a file of the user's adds accelerators, and overrides figures and prices of
those shipped.
"""

from dataclasses import replace
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planner.domain.errors import CatalogueError, SpecError
from planner.domain.hardware import (
    AcceleratorFacts,
    Catalogue,
    LinkKind,
    ListPrice,
    PurchaseOption,
)
from planner.service.spec.problems import form_problems
from planner.service.spec.yaml_source import YamlSource, parse_yaml, read_yaml

SCHEMA = "poolwise/accelerators/v1"
SHIPPED = "accelerators.yaml"
WHAT = "a catalogue of accelerators"
HINT = "`poolwise accelerators --json` shows what one holds"

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=80)]
Text = Annotated[str, Field(min_length=1, max_length=1000)]
Figure = Annotated[float, Field(gt=0, le=1e21)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PriceDocument(_Document):
    """What a provider listed on a day for one accelerator."""

    usd_per_gpu_hour: float = Field(gt=0, le=1e5, description="USD for one hour of one of them")
    purchase_option: PurchaseOption = PurchaseOption.ON_DEMAND
    provider: Text
    product: Text
    listed_on: date = Field(description="the day on which the page said so")
    source: Text = Field(description="the page")


class EntryDocument(_Document):
    """One accelerator; null: not known."""

    name: Name = Field(description="lower case, as in specs and profiles")
    aliases: list[Name] = Field(default=[], description="other names")
    title: Text | None = None
    memory_bytes: Figure | None = Field(default=None, description="bytes")
    memory_bandwidth_bytes_per_s: Figure | None = None
    bf16_flop_per_s: Figure | None = Field(default=None, description="dense, without sparsity")
    fp8_flop_per_s: Figure | None = Field(default=None, description="dense, without sparsity")
    link: LinkKind | None = Field(default=None, description="between those of one node")
    link_bandwidth_bytes_per_s: Figure | None = Field(default=None, description="one direction")
    power_w: Figure | None = Field(default=None, description="watts, at the most")
    accelerators_per_node: int | None = Field(default=None, ge=1, le=1024)
    source: Text = Field(description="where its figures were read")
    prices: list[PriceDocument] = Field(default=[])


class CatalogueDocument(_Document):
    """The whole file."""

    schema_version: Literal["poolwise/accelerators/v1"]
    accelerators: list[EntryDocument] = Field(min_length=1)


def read_catalogue(path: Path | None = None) -> Catalogue:
    """The shipped catalogue, with a file of the user's over it.

    Parameters
    ----------
    path : Path or None
        Of the user's file. Its entries add to those shipped; in an entry of the same name what
        it states replaces what is shipped.

    Raises
    ------
    CatalogueError
        With every problem on a line of its own: file, line, what is wrong.
    """
    shipped = _shipped()
    if path is None:
        return shipped
    try:
        source = read_yaml(path, what=WHAT, hint=HINT)
    except SpecError as error:
        raise CatalogueError(str(error)) from error
    return _over(shipped, _document(source), source)


@cache
def _shipped() -> Catalogue:
    text = files("planner.service.spec").joinpath(SHIPPED).read_text(encoding="utf-8")
    source = parse_yaml(text, where=SHIPPED, what=WHAT)
    return _over(Catalogue(entries=()), _document(source), source)


def catalogue_document(catalogue: Catalogue) -> CatalogueDocument:
    """The document of a catalogue: a file that `read_catalogue` reads."""
    return CatalogueDocument(
        schema_version=SCHEMA,
        accelerators=[_entry_document(entry) for entry in catalogue.entries],
    )


def _entry_document(entry: AcceleratorFacts) -> EntryDocument:
    return EntryDocument(
        name=entry.name,
        aliases=list(entry.aliases),
        title=entry.title,
        memory_bytes=entry.memory_bytes,
        memory_bandwidth_bytes_per_s=entry.memory_bandwidth_bytes_per_s,
        bf16_flop_per_s=entry.bf16_flop_per_s,
        fp8_flop_per_s=entry.fp8_flop_per_s,
        link=entry.link,
        link_bandwidth_bytes_per_s=entry.link_bandwidth_bytes_per_s,
        power_w=entry.power_w,
        accelerators_per_node=entry.accelerators_per_node,
        source=entry.source,
        prices=[
            PriceDocument(
                usd_per_gpu_hour=price.usd_per_gpu_hour,
                purchase_option=price.purchase_option,
                provider=price.provider,
                product=price.product,
                listed_on=price.listed_on,
                source=price.source,
            )
            for price in entry.prices
        ],
    )


def _document(source: YamlSource) -> CatalogueDocument:
    if source.data.get("schema_version") != SCHEMA:
        raise CatalogueError(
            f"{source.place(('schema_version',))}: {WHAT} begins with `schema_version: {SCHEMA}`; "
            f"{HINT}"
        )
    try:
        return CatalogueDocument.model_validate(source.data)
    except ValidationError as error:
        problems = form_problems(error, source, CatalogueDocument)
        raise CatalogueError("\n".join(problems)) from error


def _over(below: Catalogue, document: CatalogueDocument, source: YamlSource) -> Catalogue:
    """The entries of a document put over those of a catalogue."""
    entries = {entry.name: entry for entry in below.entries}
    owners = {name: e.name for e in below.entries for name in (e.name, *e.aliases)}
    stated: set[str] = set()
    problems = []
    for index, part in enumerate(document.accelerators):
        place = source.place(("accelerators", index))
        known = entries.get(part.name)
        taken = [n for n in (part.name, *part.aliases) if owners.get(n, part.name) != part.name]
        if part.name in stated or taken:
            name = taken[0] if taken else part.name
            problems.append(f"{place}: {name} is given twice: keep one, or give another name")
        elif known is None and part.memory_bytes is None:
            problems.append(
                f"{place}: {part.name} is new, so it needs memory_bytes (other figures may be null)"
            )
        else:
            entries[part.name] = _facts(part) if known is None else _changed(known, part)
            owners.update(dict.fromkeys((part.name, *part.aliases), part.name))
        stated.add(part.name)
    if problems:
        raise CatalogueError("\n".join(problems))
    return Catalogue(entries=tuple(entries.values()))


def _facts(part: EntryDocument) -> AcceleratorFacts:
    return AcceleratorFacts(
        name=part.name,
        aliases=tuple(part.aliases),
        title=part.title or part.name,
        memory_bytes=part.memory_bytes or 0.0,
        memory_bandwidth_bytes_per_s=part.memory_bandwidth_bytes_per_s,
        bf16_flop_per_s=part.bf16_flop_per_s,
        fp8_flop_per_s=part.fp8_flop_per_s,
        link=part.link,
        link_bandwidth_bytes_per_s=part.link_bandwidth_bytes_per_s,
        power_w=part.power_w,
        accelerators_per_node=part.accelerators_per_node,
        source=part.source,
        prices=_prices(part),
    )


def _changed(known: AcceleratorFacts, part: EntryDocument) -> AcceleratorFacts:
    """A shipped entry with what the user's states of it."""

    def figure(stated: float | None, shipped: float | None) -> float | None:
        return shipped if stated is None else stated

    return replace(
        known,
        aliases=(*known.aliases, *part.aliases),
        title=part.title or known.title,
        memory_bytes=part.memory_bytes or known.memory_bytes,
        memory_bandwidth_bytes_per_s=figure(
            part.memory_bandwidth_bytes_per_s, known.memory_bandwidth_bytes_per_s
        ),
        bf16_flop_per_s=figure(part.bf16_flop_per_s, known.bf16_flop_per_s),
        fp8_flop_per_s=figure(part.fp8_flop_per_s, known.fp8_flop_per_s),
        link=part.link or known.link,
        link_bandwidth_bytes_per_s=figure(
            part.link_bandwidth_bytes_per_s, known.link_bandwidth_bytes_per_s
        ),
        power_w=figure(part.power_w, known.power_w),
        accelerators_per_node=part.accelerators_per_node or known.accelerators_per_node,
        source=f"{part.source}; what it leaves open: {known.source}",
        prices=_prices(part) or known.prices,
    )


def _prices(part: EntryDocument) -> tuple[ListPrice, ...]:
    return tuple(
        ListPrice(
            usd_per_gpu_hour=price.usd_per_gpu_hour,
            purchase_option=price.purchase_option,
            provider=price.provider,
            product=price.product,
            listed_on=price.listed_on,
            source=price.source,
        )
        for price in part.prices
    )
