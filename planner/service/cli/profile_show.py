"""`poolwise profile show`: what a profile holds, and how near the accelerator's peak it comes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.wording import counted
from planner.service.cli import output
from planner.service.cli.catalogue_option import CatalogueOption, known_accelerators
from planner.service.cli.options import JsonOption

if TYPE_CHECKING:
    from planner.domain.model import Dtype
    from planner.domain.profile import Profile, TimeTable
    from planner.domain.profile_details import ProfileDetails, StartUp

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
        from planner.service.reports.profile_report import profile_report
        from planner.service.spec.model_config import Overrides, model_of, read_model_config

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
            [
                "kind",
                f"{source.kind}, {counted(source.points, 'point')}, error {source.error_ratio:.1%}",
            ],
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
    if profile.details is not None:
        _show_details(profile.details)
    output.print_lines("Notes", source.notes)


def _show_details(details: "ProfileDetails") -> None:
    """How it was measured, and how far off it is where nothing was fitted."""
    rows = [
        [
            name,
            fit.form,
            f"{fit.points}",
            f"{fit.held_out_points}",
            _share(fit.median_error_ratio),
            "-"
            if fit.median_error_interval is None
            else "{:.1%} to {:.1%}".format(*fit.median_error_interval),
            _share(fit.p90_error_ratio),
            _share(fit.noise_ratio),
        ]
        for name, fit in (("prefill", details.prefill), ("decode step", details.decode_step))
    ]
    columns = ("Errors at points held out", "form", "fitted points", "held out", "median")
    output.print_table("", (*columns, "its 95 %", "p90", "one sample varies"), rows)
    seen = [
        ("samples (set aside)", f"{details.samples} ({details.disturbed_samples})"),
        ("complete", "yes" if details.complete else "NO: the run was interrupted"),
        ("prefill saturated", _number(details.prefill_tokens_per_s, "tokens/s")),
        ("decode saturated", _number(details.decode_tokens_per_s, "tokens/s")),
        ("prefill through the path", _times(details.direct_prefill_ratio, "direct")),
        ("KV transfer loaded", _times(details.loaded_transfer_ratio, "idle")),
        ("prompt beside answers", _times(details.mixed_ratio, "alone")),
        ("their longest gap", _seconds(details.mixed_stall_s)),
        ("repeated prompt found", _share(details.prefix_cache_hit_ratio)),
        ("KV per token moved", _number(details.kv_bytes_per_token, "bytes")),
        ("cold start", _start(details.start_cold)),
        ("warm start", _start(details.start_warm)),
        ("memory", _number(details.memory_bytes, "bytes")),
        ("power", _number(details.power_w, "W")),
        *details.facts,
    ]
    output.print_table("Measured beside", ("", ""), [[k, v] for k, v in seen if v != "-"])


def _share(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1%}"


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:,.0f} {unit}"


def _times(ratio: float | None, than: str) -> str:
    return "-" if ratio is None else f"{ratio:.2f} x {than}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else output.milliseconds(value)


def _start(start: "StartUp | None") -> str:
    if start is None:
        return "-"
    parts = {"load": start.load_s, "compile": start.compile_s, "warm-up": start.warm_up_s}
    told = ", ".join(f"{name} {s:.1f} s" for name, s in parts.items() if s is not None)
    return f"{start.total_s:.1f} s" + (f" ({told})" if told else "")


def _format(dtype: "Dtype | None") -> str:
    return "as the model's" if dtype is None else dtype.value


def _show_times(title: str, table: "TimeTable") -> None:
    rows = [
        [f"{x:,.0f}", *(output.milliseconds(float(cell)) for cell in row)]
        for x, row in zip(table.x, table.seconds, strict=True)
    ]
    columns = (f"{table.x_name} \\ {table.y_name}", *(f"{y:,.0f}" for y in table.y))
    output.print_table(title, columns, rows)
