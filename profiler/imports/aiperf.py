"""Summaries of NVIDIA AIPerf (`profile_export_aiperf.json`), schema 1.x, as AIPerf 0.13 writes it.

One run a file; every metric is an object with its `unit` and statistics (`avg`, `p50`, ...):
`time_to_first_token`, `inter_token_latency` (of a request: (latency - TTFT) / tokens after the
first), `request_throughput`, `input_sequence_length`, `output_sequence_length`. Times are converted
by the unit that is written beside them. `input_config` holds the options of the run.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from planner.domain.errors import ProfileError
from profiler.imports.assembly import Imported
from profiler.imports.reading import (
    LONGEST_PROMPT_S,
    LONGEST_STEP_S,
    MOST_TOKENS,
    MS,
    Fields,
    S,
    Unit,
    parse_json,
    read_text,
)
from profiler.imports.runs import NO_ZONE, Run, imported_from

WHAT = "a summary of AIPerf (profile_export_aiperf.json)"
NAME = "profile_export_aiperf.json"
VERSION = "1"
UNITS = {
    "ns": Unit(name="ns", seconds=1e-9),
    "us": Unit(name="us", seconds=1e-6),
    "ms": MS,
    "sec": S,
}


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs of summary files; of folders, every summary below.

    Raises
    ------
    ProfileError
        When a file is no summary of AIPerf, or of another version.
    """
    files: list[Path] = []
    for path in paths:
        found = sorted(path.rglob(NAME)) if path.is_dir() else [path]
        if not found:
            raise ProfileError(f"{path}: no {NAME} in this folder; give {WHAT}")
        files.extend(found)
    return [_run(path) for path in files]


def read(paths: Sequence[Path]) -> Imported:
    """What the runs show of prefill and decode."""
    return imported_from(read_runs(paths), source="AIPerf", notes=[NO_ZONE])


def _run(path: Path) -> Run:
    value = parse_json(read_text(path, what=WHAT), where=str(path), what=WHAT)
    fields = Fields.of(value, where=str(path), what=WHAT)
    version = fields.text("schema_version")
    if version is None or version.partition(".")[0] != VERSION:
        raise ProfileError(
            f"{path}: schema_version: {version!r}, but only {VERSION}.x is read; give {WHAT} of "
            "AIPerf 0.13 or a version near it"
        )
    output_tokens = _average(fields, "output_sequence_length", least=1)
    return Run(
        where=fields.where,
        model=_model(fields),
        engine="OpenAI-compatible server, version not stated",
        started_at=_started_at(fields),
        input_tokens=_average(fields, "input_sequence_length", least=1),
        output_tokens=output_tokens,
        completed=int(_average(fields, "request_count")),
        failed=int(_average(fields, "error_request_count"))
        if fields.has("error_request_count")
        else 0,
        requests_per_s=_average(fields, "request_throughput")
        if fields.has("request_throughput")
        else None,
        max_concurrency=_concurrency(fields),
        ttft_s=_time(fields, "time_to_first_token", "p50", LONGEST_PROMPT_S),
        tpot_s=_time(fields, "inter_token_latency", "avg", LONGEST_STEP_S)
        if output_tokens > 1
        else None,
        problem=_problem(fields),
    )


def _average(fields: Fields, name: str, *, least: float = 0.0) -> float:
    return fields.inside(name).number("avg", least=least, most=MOST_TOKENS)


def _time(fields: Fields, name: str, statistic: str, most_s: float) -> float:
    metric = fields.inside(name)
    unit = UNITS.get(metric.text("unit") or "")
    if unit is None:
        raise metric.error(
            "unit", f"{metric.values.get('unit')!r} is none of {', '.join(UNITS)}; give {WHAT}"
        )
    return metric.seconds(statistic, unit, most_s=most_s)


def _problem(fields: Fields) -> str:
    if fields.values.get("was_cancelled") is True:
        return "it was cancelled"
    if fields.values.get("is_complete") is False:
        return f"it is not complete: {fields.text('incomplete_reason') or 'no reason stated'}"
    return ""


def _first(value: object, wanted: str | None = None) -> Mapping[str, object]:
    """The first object of a list (of the wanted kind), or nothing."""
    items = value if isinstance(value, list) else []
    for item in items:
        if isinstance(item, Mapping) and (wanted is None or item.get("kind") in (wanted, None)):
            return item
    return {}


def _options(fields: Fields) -> Mapping[str, object]:
    options = fields.values.get("input_config")
    return options if isinstance(options, Mapping) else {}


def _concurrency(fields: Fields) -> float | None:
    phase = _first(_options(fields).get("phases"), "profiling")
    where = f"{fields.where}: input_config: phases"
    stated = Fields(where=where, what=WHAT, values=phase)
    if stated.has("concurrency"):
        return stated.number("concurrency", least=1)
    # Options that were left at their default are not written: a concurrency phase has 1.
    return 1.0 if stated.text("type") == "concurrency" else None


def _model(fields: Fields) -> str | None:
    models = _options(fields).get("models")
    item = _first(models.get("items")) if isinstance(models, Mapping) else {}
    name = item.get("name")
    return name if isinstance(name, str) else None


def _started_at(fields: Fields) -> datetime:
    text = fields.text("start_time")
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError as error:
        raise fields.error("start_time", f"{text!r} is no instant; give {WHAT}") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
