"""Which accelerators a command knows: those shipped, and a file of the user's over them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from planner.domain.hardware import Catalogue

CatalogueOption = Annotated[
    Path | None,
    typer.Option(
        "--catalogue",
        help="Accelerators of your own over those shipped (YAML; default: POOLWISE_CATALOGUE).",
        metavar="FILE",
    ),
]


def known_accelerators(given: Path | None = None) -> "Catalogue":
    """The shipped catalogue with the given file over it, or that which the settings name.

    Raises
    ------
    CatalogueError
        When the file is not usable.
    """
    from planner.service.settings import read_settings
    from planner.service.spec.catalogue import read_catalogue

    return read_catalogue(given or read_settings(os.environ).catalogue.path)
