"""`poolwise profile check`: whether live engines still do what a profile says."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import InputError
from planner.domain.wording import counted
from planner.service.cli import output
from planner.service.cli.options import JsonOption

if TYPE_CHECKING:
    from planner.service.documents.profile_check import CheckDocument, DriftDocument
    from profiler.live.traffic import Watched, WatchPlan

EPILOG = (
    "Example:\n\npoolwise profile check h100.json --url http://10.0.0.7:8000 --for 120 "
    "--history checks.jsonl\n\n"
    "Exit status: 0 as the profile says, or too little traffic to tell; 1 drifted, or an engine "
    "did not answer; 2 bad input."
)
TIMEOUT_S = 10.0
LONGEST_S = 86_400.0


def check(
    path: Annotated[Path, typer.Argument(help="A profile file (JSON).", metavar="FILE")],
    *,
    url: Annotated[
        list[str],
        typer.Option("--url", help="A worker's address; repeat it for others of its pool."),
    ],
    interval: Annotated[
        float, typer.Option("--interval", help="Seconds between two looks at /metrics.")
    ] = 1.0,
    duration: Annotated[float, typer.Option("--for", help="Seconds to watch for.")] = 60.0,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            help="Relative difference that is no drift (the profile's own error, 0.1 at least).",
        ),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option("--history", help="Earlier checks; this one is added.", metavar="FILE"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Watch vLLM workers and compare gaps between tokens and prefill with the profile's.

    Reads /metrics only: sends no request. With a history it says since when they drift.
    """
    from datetime import UTC, datetime

    from planner.service.documents.profile_check import (
        append_check,
        check_document,
        read_check_history,
    )
    from profiler.files import read_profile
    from profiler.live.drift import Verdict
    from profiler.live.drift import check as compared
    from profiler.live.traffic import WatchPlan

    urls = _urls(url)
    _check_times(interval, duration, tolerance)
    profile = read_profile(path)
    earlier = () if history is None else read_check_history(history)
    if history is not None and not history.absolute().parent.is_dir():
        raise InputError(f"--history {history}: the folder does not exist; make it first")
    watched = _watched(urls, WatchPlan(interval_s=interval, for_s=duration))
    document = check_document(
        compared(profile, watched, tolerance=tolerance),
        checked_at=datetime.now(UTC),
        profile_id=profile.profile_id,
        urls=urls,
        history=earlier,
    )
    if history is not None:
        append_check(history, document)
    if json:
        output.print_json(document)
    else:
        _show(document, path)
    if document.verdict is Verdict.DRIFTED:
        raise typer.Exit(1)


def _urls(given: Sequence[str]) -> tuple[str, ...]:
    urls = []
    for url in given:
        if not url.startswith(("http://", "https://")):
            raise InputError(f"--url {url}: write it as http://HOST:PORT")
        plain = url.rstrip("/").removesuffix("/metrics").rstrip("/")
        if plain in urls:
            raise InputError(f"--url {url} is given twice")
        urls.append(plain)
    return tuple(urls)


def _check_times(interval: float, duration: float, tolerance: float | None) -> None:
    if not 0.05 <= interval <= 3600:
        raise InputError(f"--interval {interval:g}: give 0.05 to 3600 seconds")
    if not 4 * interval <= duration <= LONGEST_S:
        raise InputError(
            f"--for {duration:g}: give seconds from four times --interval ({4 * interval:g}) to "
            f"{LONGEST_S:g}"
        )
    if tolerance is not None and not 0 < tolerance <= 10:
        raise InputError(f"--tolerance {tolerance:g}: give a relative difference, as in 0.1")


def _watched(urls: Sequence[str], plan: "WatchPlan") -> tuple["Watched", ...]:
    import time

    import httpx

    from profiler.live.traffic import watch
    from serving.telemetry import read_traffic

    try:
        with httpx.Client(timeout=TIMEOUT_S) as client, output.working("watching"):
            return watch(
                urls,
                lambda url: read_traffic(client, url),
                plan,
                clock=time.monotonic,
                sleep=time.sleep,
            )
    except httpx.InvalidURL as error:
        raise InputError(f"--url: {error}") from error


_NAMES = {"itl_s": "gap between tokens", "prefill_s": "prefill, scheduled to first token"}
_WORDS = {
    "ok": "OK: as the profile says",
    "drifted": "DRIFTED",
    "not_enough_traffic": "NOT ENOUGH TRAFFIC to tell",
}


def _show(found: "CheckDocument", path: Path) -> None:
    output.print_table(
        f"{path} ({found.profile_id}) against {', '.join(found.urls)}: {_WORDS[found.verdict]}",
        ("", "observed", "predicted", "observed / predicted", "samples", ""),
        [_row(drift) for drift in found.drifts],
    )
    load = found.load
    if load is not None:
        output.print_lines(
            "Load",
            [
                f"{counted(load.requests, 'request')} in {load.seconds:,.0f} s; prompts of "
                f"{load.isl:,.0f} "
                f"and answers of {load.osl:,.0f} tokens in the mean",
                f"{load.batch:,.2f} sequences decoded together at contexts of "
                f"{load.context_tokens:,.0f} tokens; {load.computed_ratio:.0%} of prompt tokens "
                f"computed there, {load.prefill_share:.0%} of busy time",
            ],
        )
    lines = list(found.notes)
    if found.drifted_since is not None:
        lines.append(f"drifted since {found.drifted_since:%Y-%m-%d %H:%M:%S %Z}")
    lines.append(f"a difference of up to {found.tolerance_ratio:.0%} is not called drift")
    output.print_lines("Remarks", lines)


def _row(drift: "DriftDocument") -> list[str]:
    name = _NAMES[drift.quantity]
    observed = output.milliseconds(drift.observed_s)
    if drift.ratio is None or drift.low is None or drift.high is None:
        return [name, observed, "-", "-", f"{drift.samples:,}", drift.reason]
    faster = "slower" if drift.ratio > 1 else "faster"
    said = {"ok": "as said", "drifted": f"drifted: {abs(drift.ratio - 1):.0%} {faster}"}
    return [
        name,
        observed,
        output.milliseconds(drift.predicted_s),
        f"{drift.ratio:.2f} ({drift.low:.2f}-{drift.high:.2f})",
        f"{drift.samples:,}",
        said.get(drift.verdict, drift.reason),
    ]
