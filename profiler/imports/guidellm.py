"""Reports of guidellm (`benchmarks.json`), schema version 2, as guidellm 0.8.1 writes it.

`benchmarks` holds one object for each strategy; `metrics` distributions by status, of which the
successful requests count: `time_to_first_token_ms` and `inter_token_latency_ms` (of a request the
mean gap after the first token) in milliseconds. Schema version 1 has other fields and is refused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
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
    parse_json,
    read_text,
)
from profiler.imports.runs import Run, imported_from

WHAT = "a report of guidellm (benchmarks.json)"
VERSION = 2
LAST_YEAR_S = 4e9
"""Seconds since 1970 of the year 2096."""


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """The benchmarks of reports.

    Raises
    ------
    ProfileError
        When a file is no report, or of another version.
    """
    return [run for path in paths for run in _runs_of(path)]


def read(paths: Sequence[Path]) -> Imported:
    """What the benchmarks show of prefill and decode."""
    return imported_from(read_runs(paths), source="guidellm")


def _runs_of(path: Path) -> Iterator[Run]:
    value = parse_json(read_text(path, what=WHAT), where=str(path), what=WHAT)
    report = Fields.of(value, where=str(path), what=WHAT)
    version = report.inside("metadata").values.get("version")
    if version != VERSION:
        raise ProfileError(
            f"{path}: metadata: version: {version!r}, but only reports of version {VERSION} "
            "(as of guidellm 0.8) are read: run it again with that"
        )
    benchmarks = report.list_of("benchmarks")
    if not benchmarks:
        raise ProfileError(f"{path}: benchmarks: is empty: no strategy was finished")
    for number, benchmark in enumerate(benchmarks):
        where = f"{path}: benchmarks[{number}]"
        yield _run(Fields.of(benchmark, where=where, what=WHAT))


def _run(fields: Fields) -> Run:
    metrics, config = fields.inside("metrics"), fields.inside("config")
    totals = metrics.inside("request_totals")
    completed = int(totals.number("successful", most=MOST_TOKENS))
    failed = int(totals.number("errored")) if totals.has("errored") else 0
    backend = Fields.of(config.values.get("backend") or {}, where=config.where, what=WHAT)
    strategy = config.inside("strategy")
    started_s = fields.number("start_time", least=1, most=LAST_YEAR_S)
    run = Run(
        where=fields.where,
        model=backend.text("model"),
        engine=f"{backend.text('kind') or 'OpenAI-compatible server'}, version not stated",
        started_at=datetime.fromtimestamp(started_s, UTC),
        input_tokens=0.0,
        output_tokens=0.0,
        completed=completed,
        failed=failed,
        requests_per_s=None,
        max_concurrency=_concurrency(strategy),
        ttft_s=1.0,
        tpot_s=None,
        problem="" if completed else "no request completed",
    )
    return run if run.problem else _measured(run, metrics)


def _measured(run: Run, metrics: Fields) -> Run:
    def of(name: str) -> Fields:
        return metrics.inside(name, "successful")

    output_tokens = of("output_token_count").number("mean", least=1, most=MOST_TOKENS)
    gap = of("inter_token_latency_ms") if output_tokens > 1 else None
    return replace(
        run,
        input_tokens=of("prompt_token_count").number("mean", least=1, most=MOST_TOKENS),
        output_tokens=output_tokens,
        requests_per_s=of("requests_per_second").number("mean") or None,
        ttft_s=of("time_to_first_token_ms").seconds("median", MS, most_s=LONGEST_PROMPT_S),
        tpot_s=gap.seconds("mean", MS, most_s=LONGEST_STEP_S) if gap else None,
    )


def _concurrency(strategy: Fields) -> float | None:
    if strategy.text("type_") == "synchronous":
        return 1.0
    for name in ("streams", "max_concurrency"):
        if strategy.has(name):
            return strategy.number(name, least=1)
    return None
