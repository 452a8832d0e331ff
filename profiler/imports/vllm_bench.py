"""Results of `vllm bench serve --save-result` and folders of `vllm bench sweep`.

The JSON of vLLM 0.32 (`vllm/benchmarks/serve.py`): one object a run, with
`--append-result` one a line; times in milliseconds (`mean_ttft_ms`), `request_rate` a number or
"inf", `max_concurrency` null where it was not bounded, `date` local time without a zone. A sweep
writes `run=N.json` into a folder for each combination, named `SERVE-...-BENCH-...`, and beside
them `summary.json` (the same again), `warmup.json` and `*.failure.json`.
"""

from collections.abc import Iterator, Sequence
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
from profiler.imports.runs import NO_ZONE, Run, imported_from

WHAT = "a result of `vllm bench serve --save-result` or a folder of `vllm bench sweep`"
SIGNATURE = ("completed", "total_input_tokens", "request_throughput")
NO_RUNS = ("summary.json", "warmup.json")
NO_RUN_ENDINGS = (".failure.json", ".pytorch.json")


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs of result files and sweep folders.

    Raises
    ------
    ProfileError
        When a file is no such result, or a folder holds runs of several server settings.
    """
    return [run for path in _files(paths) for run in _runs_of(path)]


def read(paths: Sequence[Path]) -> Imported:
    """What the runs show of prefill and decode."""
    return imported_from(read_runs(paths), source="vllm bench serve", notes=[NO_ZONE])


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    settings: set[str] = set()
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found = [
            file
            for file in sorted(path.rglob("*.json"))
            if file.name not in NO_RUNS and not file.name.endswith(NO_RUN_ENDINGS)
        ]
        if not found:
            raise ProfileError(f"{path}: no result in this folder; give {WHAT}")
        settings.update(_server_settings(file) for file in found)
        files.extend(found)
    if len(settings) > 1:
        named = ", ".join(sorted(setting or "(none)" for setting in settings))
        raise ProfileError(
            f"runs of several server settings ({named}) are several replicas: import each on its "
            "own, by naming its folders"
        )
    return files


def _server_settings(file: Path) -> str:
    """The part of a sweep's folder name that tells how the server was started."""
    name = file.parent.name
    if not name.startswith("SERVE-"):
        return ""
    return name.removeprefix("SERVE-").partition("-BENCH-")[0].partition("-WL-")[0].strip("-")


def _runs_of(path: Path) -> Iterator[Run]:
    text = read_text(path, what=WHAT)
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and all(line.startswith("{") and line.endswith("}") for line in lines):
        for number, line in enumerate(lines, start=1):
            where = f"{path}:{number}"
            yield _run(Fields.of(parse_json(line, where=where, what=WHAT), where=where, what=WHAT))
        return
    value = parse_json(text, where=str(path), what=WHAT)
    yield _run(Fields.of(value, where=str(path), what=WHAT))


def _run(fields: Fields) -> Run:
    missing = [name for name in SIGNATURE if not fields.has(name)]
    if missing:
        raise ProfileError(f"{fields.where}: no {', '.join(missing)}: give {WHAT}")
    completed = int(fields.number("completed", most=MOST_TOKENS))
    problem = "" if completed else "no request completed"
    per = max(completed, 1)
    output_tokens = fields.number("total_output_tokens", most=MOST_TOKENS) / per
    input_tokens = fields.number("total_input_tokens", most=MOST_TOKENS) / per
    several = output_tokens > 1 and not problem
    tokenless = not problem and input_tokens < 1
    concurrency = fields.values.get("max_concurrency")
    return Run(
        where=fields.where,
        model=fields.text("model_id"),
        engine=f"{fields.text('backend') or fields.text('endpoint_type') or 'vllm'}, version "
        "not stated",
        started_at=_started_at(fields),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        completed=completed,
        failed=int(fields.number("failed")) if fields.has("failed") else 0,
        requests_per_s=fields.number("request_throughput") or None,
        max_concurrency=None if concurrency is None else fields.number("max_concurrency", least=1),
        ttft_s=1.0 if problem else _ms(fields, "median_ttft_ms", LONGEST_PROMPT_S),
        tpot_s=_ms(fields, "mean_tpot_ms", LONGEST_STEP_S) if several else None,
        gap_s=_optional_ms(fields, "median_itl_ms") if several else None,
        mean_gap_s=_optional_ms(fields, "mean_itl_ms") if several else None,
        problem=problem or ("its prompts have no tokens" if tokenless else ""),
    )


def _ms(fields: Fields, name: str, most_s: float) -> float:
    if not fields.has(name):
        raise fields.error(name, "is missing; run again with --percentile-metrics ttft,tpot,itl")
    return fields.seconds(name, MS, most_s=most_s)


def _optional_ms(fields: Fields, name: str) -> float | None:
    return _ms(fields, name, LONGEST_STEP_S) if fields.has(name) else None


def _started_at(fields: Fields) -> datetime:
    text = fields.text("date")
    try:
        return datetime.strptime(text or "", "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError as error:
        raise fields.error("date", f"{text!r} is not as 20261101-120000; give {WHAT}") from error
