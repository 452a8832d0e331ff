"""`poolwise profile show`: what a profile holds, and how near the accelerator's peak it comes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.service.cli import output
from planner.service.cli.catalogue_option import CatalogueOption, known_accelerators
from planner.service.cli.options import JsonOption

if TYPE_CHECKING:
    from planner.domain.model import Dtype
    from planner.domain.profile import Profile, TimeTable

EPILOG = (
    "Examples:\n\npoolwise profile show profiles/h100-tp1.json\n\n"
    "poolwise profile show h100.json --html h100.html --config Qwen3-8B/config.json"
)


def show(
    path: Annotated[Path, typer.Argument(help="A profile file (JSON).", metavar="FILE")],
    *,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write plots as one HTML page, too.", metavar="OUT"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="The model's config.json: draws the roofs.", metavar="FILE"),
    ] = None,
    parameters: Annotated[
        int | None,
        typer.Option("--parameters", help="Its weights, where config.json does not tell.", min=1),
    ] = None,
    active_parameters: Annotated[
        int | None,
        typer.Option("--active-parameters", help="Weights that one token passes.", min=1),
    ] = None,
    catalogue: CatalogueOption = None,
    json: JsonOption = False,
) -> None:
    """Show what a profile holds: times, limits, where they come from, and their error.

    With --html also tokens/s under the roofs of the accelerator's peak compute and memory
    bandwidth, from the catalogue; what a token costs follows from the model's config.json.
    """
    from planner.service.whole_file import check_writable, whole_file
    from profiler.files import profile_document, read_profile

    if html is not None:
        inputs = [given for given in (path, config, catalogue) if given is not None]
        check_writable(html, option="--html", inputs=inputs)
    profile = read_profile(path)
    if html is not None:
        from planner.service.model_config import Overrides, model_of, read_model_config
        from planner.service.reports.profile_report import profile_report

        overrides = Overrides(parameters=parameters, active_parameters=active_parameters)
        model = None
        if config is not None:
            found = read_model_config(config)
            model = model_of(found, name=profile.model, priority=0, overrides=overrides)
        facts = known_accelerators(catalogue).find(profile.accelerator)
        with whole_file(html) as unfinished:
            unfinished.write_text(profile_report(profile, model, facts), encoding="utf-8")
    if json:
        output.print_json(profile_document(profile))
        return
    _show(profile)
    if html is not None:
        output.note(f"plots: {html}")


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
    output.print_lines("Notes", source.notes)


def _format(dtype: "Dtype | None") -> str:
    return "as the model's" if dtype is None else dtype.value


def _show_times(title: str, table: "TimeTable") -> None:
    rows = [
        [f"{x:,.0f}", *(output.milliseconds(float(cell)) for cell in row)]
        for x, row in zip(table.x, table.seconds, strict=True)
    ]
    columns = (f"{table.x_name} \\ {table.y_name}", *(f"{y:,.0f}" for y in table.y))
    output.print_table(title, columns, rows)
