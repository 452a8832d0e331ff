"""`poolwise init`: a first spec, by flags or by answers."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from planner.domain.errors import InputError
from planner.service.cli import output
from planner.service.cli.catalogue_option import CatalogueOption, known_accelerators
from planner.service.cli.options import JsonOption

if TYPE_CHECKING:
    from planner.domain.hardware import Catalogue

EPILOG = (
    "Examples:\n\n"
    "poolwise init --config llama/config.json --accelerator h100 --usd-per-gpu-hour 2.5\n\n"
    "poolwise init shop.yaml --config llama --accelerator h200 --usd-per-gpu-hour 3 "
    "--target kubernetes --profile prefill.json --profile decode.json\n\n"
    "On a terminal, what is missing is asked for. An existing file is never overwritten."
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="The model's config.json, or its folder.", metavar="PATH"),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", help="Name it is served under (default: its folder's).", metavar="NAME"
    ),
]


def init(
    *,
    out: Annotated[Path, typer.Argument(help="The file to write.", metavar="FILE")] = Path(
        "spec.yaml"
    ),
    config: ConfigOption = None,
    model: ModelOption = None,
    accelerator: Annotated[
        str | None,
        typer.Option("--accelerator", help="As in `poolwise accelerators`.", metavar="NAME"),
    ] = None,
    usd_per_gpu_hour: Annotated[
        float | None,
        typer.Option("--usd-per-gpu-hour", help="What you pay for one, on demand.", min=0),
    ] = None,
    target: Annotated[
        Literal["dry_run", "local", "kubernetes", "metrics"],
        typer.Option("--target", help="Where plans are applied."),
    ] = "dry_run",
    name: Annotated[
        str | None, typer.Option("--name", help="Of the deployment (default: as the model).")
    ] = None,
    inventory: Annotated[
        int | None,
        typer.Option("--inventory", help="Accelerators that may be had (default: 2 nodes).", min=1),
    ] = None,
    per_node: Annotated[
        int | None,
        typer.Option("--per-node", help="Accelerators in one node (default: as known).", min=1),
    ] = None,
    tp: Annotated[
        int | None,
        typer.Option("--tp", help="Accelerators of a replica (default: as few as fit).", min=1),
    ] = None,
    ttft_s: Annotated[float, typer.Option("--ttft-s", help="Promised, seconds.")] = 2.0,
    tpot_s: Annotated[float, typer.Option("--tpot-s", help="Promised, seconds.")] = 0.05,
    profile: Annotated[
        list[Path] | None,
        typer.Option("--profile", help="A measured profile; may be repeated.", metavar="FILE"),
    ] = None,
    catalogue: CatalogueOption = None,
    json: JsonOption = False,
) -> None:
    """Write a first spec with comments, checked as a whole. Overwrites nothing."""
    from planner.domain.spec import TargetKind
    from planner.service.spec.starter import Draft, starter

    _check_place(out)
    known = known_accelerators(catalogue)
    asks = sys.stdin.isatty() and not json
    config = config or Path(_answer("--config", "Path of the model's config.json", asks=asks))
    accelerator = accelerator or _answer("--accelerator", "Accelerator", asks=asks)
    price = _price(known, accelerator, asks=asks) if usd_per_gpu_hour is None else usd_per_gpu_hour
    model = model or _name_of(config)
    made = starter(
        Draft(
            name=name or _plain(model),
            model=model,
            config=config,
            accelerator=accelerator,
            usd_per_gpu_hour=price,
            target=TargetKind(target),
            inventory=inventory,
            per_node=per_node,
            tp=tp,
            ttft_s=ttft_s,
            tpot_s=tpot_s,
            profiles=tuple(profile or ()),
        ),
        out.absolute().parent,
        known,
    )
    _write(out, made.text)
    _tell(out, estimates=not profile, as_json=json, spec_id=made.spec.spec_id)


def _check_place(out: Path) -> None:
    if out.exists():
        raise InputError(f"{out} exists, and nothing is overwritten: name another file")
    if not out.absolute().parent.is_dir():
        raise InputError(f"there is no folder {out.absolute().parent}: make it first")


def _answer(option: str, question: str, *, asks: bool, why: str = "") -> str:
    if not asks:
        raise InputError(f"give {option}{why}: there is no terminal to ask at")
    return str(typer.prompt(question, err=True)).strip()


def _price(known: "Catalogue", accelerator: str, *, asks: bool) -> float:
    """What one costs; the list price is only told, as specs never take a price from it."""
    facts = known.find(accelerator)
    listed = None if facts is None else facts.typical_price()
    why = (
        ""
        if listed is None
        else f" ({listed.provider} listed {listed.usd_per_gpu_hour:g} on {listed.listed_on})"
    )
    given = _answer("--usd-per-gpu-hour", f"USD for one and an hour{why}", asks=asks, why=why)
    try:
        return float(given)
    except ValueError as error:
        raise InputError(f"{given!r} is no price: give USD for one accelerator and hour") from error


def _name_of(config: Path) -> str:
    folder = config.absolute() if config.is_dir() else config.absolute().parent
    return folder.name or "model"


def _plain(model: str) -> str:
    """A model's name as that of a deployment."""
    letters = "".join(c if c.isascii() and c.isalnum() else "-" for c in model.lower())
    return letters.strip("-")[:63].strip("-") or "default"


def _write(out: Path, text: str) -> None:
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise InputError(f"{out} exists, and nothing is overwritten: name another file") from error
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from error


def _tell(out: Path, *, estimates: bool, as_json: bool, spec_id: str) -> None:
    more = " --allow-estimates" if estimates else ""
    following = f"poolwise plan --spec {out} --trace requests.jsonl{more}"
    if as_json:
        import json

        facts = {"path": str(out), "spec_id": spec_id, "estimates": estimates, "next": following}
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo(f"{out} is written and valid. Put in your promises, prices and counts, then:")
    typer.echo(f"  {following}")
    if estimates:
        output.note(
            "No profile was given: plans are made from rough ESTIMATES until you measure one "
            "(`poolwise profile run`), and are never applied by themselves."
        )
