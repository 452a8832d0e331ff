"""Options that the commands which make profiles share."""

from pathlib import Path
from typing import Annotated

import typer

OutOption = Annotated[
    Path, typer.Option("--out", help="Where the profile goes (JSON).", metavar="FILE")
]
NameOption = Annotated[
    str | None, typer.Option("--name", help="The model's name in specs, if another.")
]
TpOption = Annotated[
    int, typer.Option("--tp", min=1, help="Tensor parallel degree: accelerators of a replica.")
]
