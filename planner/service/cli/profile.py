"""`poolwise profile`: what replicas were measured to do."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.service.cli import output, profile_export, profile_import, profile_run
from planner.service.cli.options import JsonOption

if TYPE_CHECKING:
    from planner.domain.model import Dtype
    from planner.domain.profile import Profile, TimeTable

app = typer.Typer(no_args_is_help=True, help="Measure engines and look at what was measured.")

app.command(epilog=profile_run.EPILOG)(profile_run.run)
app.command("import", epilog=profile_import.EPILOG)(profile_import.import_)
app.command(epilog=profile_export.EPILOG)(profile_export.export)


@app.command(epilog="Example:\n\npoolwise profile show profiles/h100-tp1.json")
def show(
    path: Annotated[Path, typer.Argument(help="A profile file (JSON).", metavar="FILE")],
    *,
    json: JsonOption = False,
) -> None:
    """Show what a profile holds: times, limits, and where they come from."""
    from profiler.files import profile_document, read_profile

    profile = read_profile(path)
    if json:
        output.print_json(profile_document(profile))
        return
    _show(profile)


def _show(profile: "Profile") -> None:
    source, limits, times = profile.provenance, profile.limits, profile.lifecycle
    roles = ", ".join(profile.roles)
    formats = f"{_format(profile.weight_dtype)} / {_format(profile.kv_dtype)}"
    output.print_table(
        f"{profile.profile_id}: {profile.model} on {profile.accelerator}, tp {profile.tp}",
        ("", ""),
        [
            ["roles", roles],
            ["weights / KV cache", formats],
            ["kind", f"{source.kind}, {source.points} points, error {source.error_ratio:.1%}"],
            ["source", source.source],
            ["engine", source.engine],
            ["machine", source.machine],
            ["measured at", source.measured_at.isoformat()],
            ["KV cache", f"{limits.kv_capacity_tokens:,} tokens"],
            ["KV per token", f"{limits.kv_bytes_per_token:,.0f} bytes"],
            ["sequences at once", f"{limits.max_num_seqs:,}"],
            ["tokens per step", f"{limits.max_num_batched_tokens:,}"],
            ["longest prompt + answer", f"{limits.max_model_len:,} tokens"],
            ["TTFT overhead", output.milliseconds(profile.first_token_s)],
            [
                "KV transfer",
                f"{output.milliseconds(profile.transfer.base_s)} + bytes / "
                f"{profile.transfer.bandwidth_bytes_per_s / 1e9:,.3g} GB/s",
            ],
            ["start cold / warm", f"{times.start_cold_s:,.0f} s / {times.start_warm_s:,.0f} s"],
            ["flip / drain", f"{times.flip_s:,.1f} s / {times.drain_s:,.1f} s"],
        ],
        numbers_from=9,
    )
    _show_times("Prefill", profile.prefill)
    _show_times("Decode step", profile.decode_step)


def _format(dtype: "Dtype | None") -> str:
    return "as the model's" if dtype is None else dtype.value


def _show_times(title: str, table: "TimeTable") -> None:
    rows = [
        [f"{x:,.0f}", *(output.milliseconds(float(cell)) for cell in row)]
        for x, row in zip(table.x, table.seconds, strict=True)
    ]
    columns = (f"{table.x_name} \\ {table.y_name}", *(f"{y:,.0f}" for y in table.y))
    output.print_table(title, columns, rows)
