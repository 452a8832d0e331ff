"""`poolwise profile link`: a profile with the KV transfers of another link."""

from pathlib import Path
from typing import Annotated

import typer

from planner.domain.topology import Distance
from planner.service.cli.options import JsonOption
from planner.service.cli.profile_options import OutOption

EPILOG = (
    "Example:\n\npoolwise profile link profile.json transfers.csv --class cross_rack "
    '--source "two racks of the test cluster, RoCE 100 Gbit/s, 2026-11-20" --out cross-rack.json'
)


def link(
    path: Annotated[Path, typer.Argument(help="A profile file (JSON).", metavar="FILE")],
    transfers: Annotated[
        Path, typer.Argument(help="CSV: kv_bytes,seconds of single transfers.", metavar="CSV")
    ],
    *,
    link_class: Annotated[
        Distance, typer.Option("--class", help="How far the ends of the link are apart.")
    ],
    source: Annotated[str, typer.Option("--source", help="Who measured it on what.")],
    out: OutOption,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a profile again with KV transfers that were measured over another link.

    What was measured elsewhere is named in the profile: the link's class and who measured it.
    """
    from planner.domain.errors import InputError
    from planner.service.cli import output
    from planner.service.documents.profile_link import LinkedProfileDocument
    from planner.service.whole_file import check_writable
    from profiler.files import read_profile, write_profile
    from profiler.imports.links import over_link

    check_writable(out, option="--out", inputs=(transfers,))
    if out.exists() and not force:
        raise InputError(f"--out: {out} exists; replace it with --force")
    profile = over_link(read_profile(path), transfers, link_class, source)
    write_profile(profile, out)
    transfer, note = profile.transfer, profile.provenance.notes[-1]
    if json:
        output.print_json(
            LinkedProfileDocument(
                profile_id=profile.profile_id,
                file=str(out),
                link_class=link_class,
                source=source.strip(),
                base_s=transfer.base_s,
                flow_bytes_per_s=transfer.bandwidth_bytes_per_s,
                note=note,
            )
        )
        return
    output.note(
        f"profile {profile.profile_id}: {out}, {link_class}: {1e3 * transfer.base_s:.2f} ms + "
        f"bytes at {transfer.bandwidth_bytes_per_s / 1e9:.3g} GB/s"
    )
    output.note(f"  - {note}")
