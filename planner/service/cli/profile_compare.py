"""`poolwise profile compare`: profiles side by side, per USD, and whether they agree."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import InputError
from planner.domain.wording import counted
from planner.service.cli import output
from planner.service.cli.catalogue_option import CatalogueOption, known_accelerators
from planner.service.cli.options import JsonOption

if TYPE_CHECKING:
    from planner.domain.hardware import Catalogue
    from planner.domain.profile import Profile
    from planner.service.documents.profile_comparison import (
        ComparedDocument,
        ComparedProfileDocument,
        ComparisonDocument,
    )

EPILOG = (
    "Examples:\n\npoolwise profile compare h100.json h200.json --itl 0.03 --price h100=2.9\n\n"
    "poolwise profile compare monday.json friday.json"
)
LONGEST_CONTEXT = 10**9


def compare(
    files: Annotated[
        list[Path], typer.Argument(help="Two or more profile files (JSON).", metavar="FILE...")
    ],
    *,
    itl: Annotated[
        list[float] | None,
        typer.Option("--itl", help="Promised gap between tokens, seconds; may be repeated (0.05)."),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option("--context", help="Context of each decoded sequence, tokens.", min=1),
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            "--price", help="USD of one accelerator for one hour, as h100=2.9.", metavar="NAME=USD"
        ),
    ] = None,
    catalogue: CatalogueOption = None,
    json: JsonOption = False,
) -> None:
    """Compare profiles: prefill and decode tokens/s, KV cache, transfer, start, tokens per USD.

    Ratios are to the first profile, with the interval of both stated errors. Profiles of one
    model on one accelerator should agree: it says how far apart they are, and whether that is
    more than their errors explain.
    """
    from profiler.files import read_profile

    if len(files) < 2:
        raise InputError("give two profiles at least: poolwise profile compare A.json B.json")
    promised = tuple(itl or (0.05,))
    if not all(0 < value <= 60 for value in promised):
        raise InputError("--itl is a gap between two tokens in seconds: give 0 to 60")
    if context is not None and context > LONGEST_CONTEXT:
        raise InputError(f"--context {context}: give 1 to {LONGEST_CONTEXT:,} tokens")
    profiles = [read_profile(path) for path in files]
    priced = _priced(files, profiles, _stated(price or ()), known_accelerators(catalogue))
    document = _document(profiles, priced, promised, context)
    if json:
        output.print_json(document)
    else:
        _show(document)


def _stated(prices: Sequence[str]) -> dict[str, float]:
    """Prices that were given, by the accelerator's name."""
    found: dict[str, float] = {}
    for text in prices:
        name, _, usd = text.partition("=")
        try:
            value = float(usd)
        except ValueError as error:
            raise InputError(f"--price {text}: write it as NAME=USD, as in h100=2.9") from error
        if not name or not 0 < value < 1e6:
            raise InputError(f"--price {text}: a price is a number of USD above 0, of a NAME")
        if name in found:
            raise InputError(f"--price {text}: {name} has a price already; keep one")
        found[name] = value
    return found


def _priced(
    files: Sequence[Path],
    profiles: Sequence["Profile"],
    stated: dict[str, float],
    catalogue: "Catalogue",
) -> tuple["ComparedProfileDocument", ...]:
    """Every profile with the price that was given, or else the catalogue's."""
    from planner.service.documents.profile_comparison import ComparedProfileDocument

    unknown = sorted(set(stated) - {p.accelerator for p in profiles})
    if unknown:
        names = ", ".join(dict.fromkeys(p.accelerator for p in profiles))
        raise InputError(f"--price {unknown[0]}: no profile is of it (they are of {names})")
    found = []
    for path, profile in zip(files, profiles, strict=True):
        usd, source, listed_on = stated.get(profile.accelerator), "as given", None
        facts = catalogue.find(profile.accelerator)
        price = None if facts is None else facts.typical_price()
        if usd is None and price is not None:
            usd, listed_on = price.usd_per_gpu_hour, price.listed_on
            source = f"{price.provider}, {price.product}, {price.source}"
        found.append(
            ComparedProfileDocument(
                profile_id=profile.profile_id,
                file=str(path),
                model=profile.model,
                accelerator=profile.accelerator,
                accelerators=profile.tp * profile.pp * profile.dp,
                kind=profile.provenance.kind.value,
                error_ratio=profile.provenance.error_ratio,
                usd_per_gpu_hour=usd,
                price_source=None if usd is None else source,
                price_listed_on=listed_on,
            )
        )
    return tuple(found)


def _document(
    profiles: Sequence["Profile"],
    priced: Sequence["ComparedProfileDocument"],
    itl_s: Sequence[float],
    context: int | None,
) -> "ComparisonDocument":
    from planner.service.documents.profile_comparison import (
        ComparisonDocument,
        agreement_documents,
        compared_document,
    )
    from profiler.comparison import agreements, common_context, compare, same_replica

    first = profiles[0]
    usd = [None if p.usd_per_gpu_hour is None else p.usd_per_gpu_hour * p.accelerators
           for p in priced]  # fmt: skip
    rows = compare(profiles, itl_s=itl_s, context_tokens=context, usd_per_hour=usd)
    return ComparisonDocument(
        profiles=tuple(priced),
        context_tokens=context or common_context(profiles),
        compared=tuple(compared_document(row) for row in rows),
        agreement=tuple(
            document
            for other in profiles[1:]
            if same_replica(first, other)
            for document in agreement_documents(other, agreements(first, other))
        ),
    )


_NAMES = {
    "prefill_tokens_per_s": "prefill of {at:,.0f} tokens, tokens/s",
    "decode_tokens_per_s": "decode at ITL {at:g} s, tokens/s (batch)",
    "kv_capacity_tokens": "KV cache, tokens",
    "transfer_s": "KV transfer of 1,000 tokens",
    "start_cold_s": "start cold",
    "start_warm_s": "start warm",
}


def _show(found: "ComparisonDocument") -> None:
    letters = [chr(ord("A") + i) if i < 26 else str(i + 1) for i in range(len(found.profiles))]
    output.print_table(
        "",
        ("", "profile", "model", "accelerator", "kind", "error", "USD/h each"),
        [
            [letter, p.file, p.model, f"{p.accelerators} x {p.accelerator}", p.kind,
             output.percent(p.error_ratio), _usd(p.usd_per_gpu_hour)]
            for letter, p in zip(letters, found.profiles, strict=True)
        ],
        numbers_from=5,
    )  # fmt: skip
    ratios = [f"{letter} / A" for letter in letters[1:]]
    output.print_table(
        f"Side by side, contexts of {found.context_tokens:,} tokens",
        ("", *letters, *ratios),
        [_row(row) for row in found.compared],
    )
    spent = [row for row in found.compared if any(row.tokens_per_usd)]
    if spent:
        output.print_table(
            "Million tokens per USD",
            ("", *letters),
            [
                [_name(r).replace(", tokens/s", ""), *(_millions(v) for v in r.tokens_per_usd)]
                for r in spent
            ],
        )
    output.print_lines("Prices", _price_lines(found, letters))
    output.print_lines("Agreement", _agreement_lines(found, letters))


def _row(row: "ComparedDocument") -> list[str]:
    values = [_value(row, index) for index in range(len(row.values))]
    ratios = [
        "-" if ratio is None else f"{ratio:.2f}" + _interval(row, index)
        for index, ratio in enumerate(row.ratios)
    ]
    return [_name(row), *values, *ratios[1:]]


def _interval(row: "ComparedDocument", index: int) -> str:
    low, high = row.ratios_low[index], row.ratios_high[index]
    return "" if low is None or high is None or low == high else f" ({low:.2f}-{high:.2f})"


def _name(row: "ComparedDocument") -> str:
    return _NAMES[row.quantity].format(at=row.at)


def _value(row: "ComparedDocument", index: int) -> str:
    value = row.values[index]
    if value is None:
        return "none"
    if row.quantity.endswith("_s") and "per_s" not in row.quantity:
        return output.milliseconds(value)
    batch = f" ({row.batches[index]})" if row.batches else ""
    return f"{value:,.0f}{batch}" if value >= 100 else f"{value:,.3g}{batch}"


def _usd(usd: float | None) -> str:
    return "-" if usd is None else f"{usd:,.2f}"


def _millions(tokens: float | None) -> str:
    return "-" if tokens is None else f"{tokens / 1e6:,.3g}"


def _price_lines(found: "ComparisonDocument", letters: Sequence[str]) -> list[str]:
    lines = []
    for letter, p in zip(letters, found.profiles, strict=True):
        if p.usd_per_gpu_hour is None:
            lines.append(f"{letter}: none known of {p.accelerator}: --price {p.accelerator}=USD")
        elif p.price_listed_on is not None:
            lines.append(
                f"{letter}: listed on {p.price_listed_on} by {p.price_source}; what you pay: "
                f"--price {p.accelerator}=USD"
            )
    return lines


def _agreement_lines(found: "ComparisonDocument", letters: Sequence[str]) -> list[str]:
    if not found.agreement:
        return ["not asked: the profiles are of other models, accelerators or formats"]
    by_id = dict(zip([p.profile_id for p in found.profiles], letters, strict=True))
    return [
        f"{by_id[a.profile_id]} and A in {a.table}: median {a.median_ratio:.1%}, p90 "
        f"{a.p90_ratio:.1%} apart over {counted(a.points, 'point')}, "
        + ("MORE than" if a.exceeds else "within")
        + f" the {a.stated_ratio:.1%} that their errors explain"
        for a in found.agreement
    ]
