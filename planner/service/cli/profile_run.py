"""`poolwise profile run`: measure an engine, launched here or behind an address."""

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import InputError
from planner.service.cli.options import JsonOption

if TYPE_CHECKING:
    from planner.domain.profile import Profile

EPILOG = (
    "Examples:\n\n"
    "poolwise profile run --out profile.json --quick\n\n"
    "poolwise profile run --url http://10.0.0.7:8000 --model Qwen/Qwen3-32B --role aggregated "
    "--accelerator h100 --tp 2 --out qwen3-32b-h100-tp2.json\n\n"
    "What is measured is kept beside --out as it comes (….journal.jsonl): after an interruption "
    "the same command goes on from it, and what there was is a profile marked INCOMPLETE."
)


class Measured(StrEnum):
    """What is measured: a routed pair, or one worker."""

    PAIR = "pair"
    PREFILL = "prefill"
    DECODE = "decode"
    AGGREGATED = "aggregated"


def run(
    out: Annotated[
        Path, typer.Option("--out", help="Where the profile goes (JSON).", metavar="FILE")
    ],
    *,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", help="A running server or P/D router, without /v1; default: launch one here."
        ),
    ] = None,
    metrics_url: Annotated[
        str | None,
        typer.Option("--metrics-url", help="With --url of a router: a decode worker's address."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model", help="tiny, smollm2, or a model's folder; with --url its served name."
        ),
    ] = "tiny",
    name: Annotated[
        str | None, typer.Option("--name", help="The model's name in specs, if another.")
    ] = None,
    accelerator: Annotated[
        str, typer.Option("--accelerator", help="Its name in specs; here a share of the processor.")
    ] = "cpu-slot",
    role: Annotated[
        Measured,
        typer.Option(
            "--role", help="pair: prefill and decode worker behind a P/D router; or one of a role."
        ),
    ] = Measured.PAIR,
    tp: Annotated[int, typer.Option("--tp", min=1, help="Tensor parallel degree.")] = 1,
    gpus: Annotated[
        str, typer.Option("--gpus", help="Launch on these GPUs, as 0,1,2; default: the processor.")
    ] = "",
    cores: Annotated[
        float, typer.Option("--cores", help="Without GPUs: processor share of one worker, cores.")
    ] = 0.5,
    engine_flag: Annotated[
        list[str] | None,
        typer.Option("--engine-flag", help="Passed on to vLLM, as --engine-flag=--no-enable-…"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two minutes of measuring instead of ten.")
    ] = False,
    budget_s: Annotated[
        float | None,
        typer.Option("--budget-s", help="Measure no longer (engine starts excluded), seconds."),
    ] = None,
    target_error: Annotated[
        float, typer.Option("--target-error", help="Stop where nothing is in doubt by more, 0..1.")
    ] = 0.03,
    max_prompt: Annotated[
        int | None, typer.Option("--max-prompt", help="Longest prompt to compute, tokens.")
    ] = None,
    max_cached: Annotated[
        int | None, typer.Option("--max-cached", help="Longest cached prefix, tokens; 0: none.")
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option("--max-batch", help="Most sequences decoded together.")
    ] = None,
    max_context: Annotated[
        int | None, typer.Option("--max-context", help="Longest context decoded, tokens.")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option("--max-model-len", help="As vLLM's option, tokens.")
    ] = None,
    max_num_seqs: Annotated[
        int | None, typer.Option("--max-num-seqs", help="As vLLM's option.")
    ] = None,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option("--max-num-batched-tokens", help="As vLLM's option, tokens.")
    ] = None,
    kv_capacity_tokens: Annotated[
        int | None,
        typer.Option("--kv-capacity-tokens", help="With --url: where /metrics does not tell it."),
    ] = None,
    kv_bytes_per_token: Annotated[
        float | None, typer.Option("--kv-bytes-per-token", help="With --url, bytes.")
    ] = None,
    start_s: Annotated[
        float | None, typer.Option("--start-s", help="With --url: how long a start takes, seconds.")
    ] = None,
    machine: Annotated[
        str | None, typer.Option("--machine", help="With --url: what it runs on, for provenance.")
    ] = None,
    words: Annotated[
        Path | None,
        typer.Option("--words", help="Single-token words (JSON list), if asking finds too few."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew; an earlier run's journal is moved aside.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure an engine until its tables are sure, and write its profile with its errors.

    Prefill time over new and cached tokens, decode step time over batch and context, KV transfer
    through the P/D path, prompts beside running answers, prefix cache, start, drain, flip. Starts
    coarse, then measures wherever the fitted tables are most in doubt, until that is below
    --target-error or the budget ends.
    """
    from planner.service.cli import output
    from planner.service.profiling import Asked, run_profile
    from profiler.files import profile_document

    if not out.absolute().parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.absolute().parent} does not exist")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder: name a file in it")
    asked = Asked(
        out=out,
        url=None if url is None else url.rstrip("/").removesuffix("/v1"),
        metrics_url=metrics_url,
        model=model,
        name=name,
        accelerator=accelerator,
        role=role.value,
        tp=tp,
        gpus=_gpus(gpus),
        cores=cores,
        engine_flags=tuple(engine_flag or ()),
        quick=quick,
        budget_s=budget_s,
        target_ratio=target_error,
        max_prompt=max_prompt,
        max_cached=max_cached,
        max_batch=max_batch,
        max_context=max_context,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        kv_capacity_tokens=kv_capacity_tokens,
        kv_bytes_per_token=kv_bytes_per_token,
        start_s=start_s,
        machine=machine,
        words=words,
        fresh=fresh,
    )
    profile = run_profile(asked, os.environ)
    if json:
        output.print_json(profile_document(profile))
    else:
        output.note(_told(profile, out))


def _gpus(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(x) for x in text.split(",") if x.strip())
    except ValueError:
        raise InputError(f"--gpus {text}: give indices as in 0,1,2") from None


def _told(profile: "Profile", out: Path) -> str:
    details = profile.details
    assert details is not None
    lines = [f"profile {profile.profile_id}: {out}"]
    for name, fit in (("prefill", details.prefill), ("decode step", details.decode_step)):
        line = f"{name}: {fit.points} points, {fit.form}"
        if fit.median_error_ratio is not None and fit.p90_error_ratio is not None:
            judged = (
                f"{fit.held_out_points} points kept from fitting"
                if fit.held_out_points
                else "points left out one by one"
            )
            line += (
                f"; at {judged} off by {fit.median_error_ratio:.1%} in the median, "
                f"{fit.p90_error_ratio:.1%} at the 90th percentile; one sample varies by "
                f"{fit.noise_ratio:.1%}"
            )
        lines.append(line)
    lines += [f"note: {text}" for text in profile.provenance.notes]
    return "\n".join(lines)
