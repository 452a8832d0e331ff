"""`poolwise profile run`: measure an engine, launched here or behind an address."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from planner.domain.errors import InputError
from planner.domain.wording import counted
from planner.service.cli.options import JsonOption
from planner.service.cli.profile_options import NameOption, OutOption, TpOption
from planner.service.cli.profile_run_options import (
    AcceleratorOption,
    BudgetSOption,
    CoresOption,
    EngineFlagOption,
    FreshOption,
    GpusOption,
    KvBytesPerTokenOption,
    KvCapacityTokensOption,
    MachineOption,
    MaxBatchOption,
    MaxCachedOption,
    MaxContextOption,
    MaxModelLenOption,
    MaxNumBatchedTokensOption,
    MaxNumSeqsOption,
    MaxPromptOption,
    Measured,
    MetricsUrlOption,
    ModelOption,
    QuickOption,
    RoleOption,
    StartSOption,
    StartTimeoutSOption,
    TargetErrorOption,
    UrlOption,
    WordsOption,
)

if TYPE_CHECKING:
    from planner.domain.profile import Profile

DEFAULT_CORES = 0.5
_OF_LAUNCHED: tuple[str, ...] = ("--gpus", "--cores", "--engine-flag")
_OF_RUNNING: tuple[str, ...] = (
    "--kv-capacity-tokens",
    "--kv-bytes-per-token",
    "--start-s",
    "--machine",
    "--words",
)
EPILOG = (
    "Examples:\n\n"
    "poolwise profile run --out profile.json --quick\n\n"
    "poolwise profile run --url http://10.0.0.7:8000 --model Qwen/Qwen3-32B --role aggregated "
    "--accelerator h100 --tp 2 --kv-bytes-per-token 262144 --start-s 180 "
    "--out qwen3-32b-h100-tp2.json\n\n"
    "What is measured is kept beside --out as it comes (….journal.jsonl): after an interruption "
    "the same command goes on from it, and what there was is a profile marked INCOMPLETE."
)


def run(
    out: OutOption,
    *,
    url: UrlOption = None,
    metrics_url: MetricsUrlOption = None,
    model: ModelOption = "tiny",
    name: NameOption = None,
    accelerator: AcceleratorOption = None,
    role: RoleOption = Measured.PAIR,
    tp: TpOption = 1,
    gpus: GpusOption = "",
    cores: CoresOption = None,
    engine_flag: EngineFlagOption = None,
    quick: QuickOption = False,
    budget_s: BudgetSOption = None,
    target_error: TargetErrorOption = 0.03,
    max_prompt: MaxPromptOption = None,
    max_cached: MaxCachedOption = None,
    max_batch: MaxBatchOption = None,
    max_context: MaxContextOption = None,
    max_model_len: MaxModelLenOption = None,
    max_num_seqs: MaxNumSeqsOption = None,
    max_num_batched_tokens: MaxNumBatchedTokensOption = None,
    kv_capacity_tokens: KvCapacityTokensOption = None,
    kv_bytes_per_token: KvBytesPerTokenOption = None,
    start_s: StartSOption = None,
    start_timeout_s: StartTimeoutSOption = 300.0,
    machine: MachineOption = None,
    words: WordsOption = None,
    fresh: FreshOption = False,
    json: JsonOption = False,
) -> None:
    """Measure an engine until its tables are sure, and write its profile with its errors.

    Prefill time over new and cached tokens, decode step time over batch and context, KV transfer
    through the P/D path, prompts beside running answers, prefix cache, start, drain, flip. Starts
    coarse, then measures wherever the fitted tables are most in doubt, until that is below
    --target-error or the budget ends.
    """
    from planner.service.answers.profiling import run_profile
    from planner.service.answers.profiling_request import Asked, Coverage
    from planner.service.whole_file import check_writable

    check_writable(out, option="--out")
    _check_belonging(
        url,
        launched=(gpus or None, cores, engine_flag),
        running=(kv_capacity_tokens, kv_bytes_per_token, start_s, machine, words),
    )
    asked = Asked(
        out=out,
        url=None if url is None else _base_url(url),
        metrics_url=None if metrics_url is None else _base_url(metrics_url),
        model=model,
        name=name,
        accelerator=_accelerator(accelerator, url, gpus, tp),
        role=role.value,
        tp=tp,
        gpus=_gpus(gpus),
        cores=DEFAULT_CORES if cores is None else cores,
        engine_flags=tuple(engine_flag or ()),
        quick=quick,
        budget_s=budget_s,
        target_ratio=target_error,
        covers=Coverage(max_prompt, max_cached, max_batch, max_context),
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        kv_capacity_tokens=kv_capacity_tokens,
        kv_bytes_per_token=kv_bytes_per_token,
        start_s=start_s,
        start_timeout_s=start_timeout_s,
        machine=machine,
        words=words,
        fresh=fresh,
    )
    _show(run_profile(asked, os.environ), out, json=json)


def _show(profile: "Profile", out: Path, *, json: bool) -> None:
    from planner.service.cli import output
    from profiler.files import profile_document

    if json:
        output.print_json(profile_document(profile))
    else:
        output.note(_told(profile, out))


def _check_belonging(
    url: str | None, *, launched: tuple[object, ...], running: tuple[object, ...]
) -> None:
    """Refuse the first option that would be ignored: it belongs to the other way of measuring."""
    if url is None:
        options, given = _OF_RUNNING, running
        why = "goes with --url: of an engine that is launched here it is read"
    else:
        options, given = _OF_LAUNCHED, launched
        why = "is of an engine that is launched here, not of one at a --url"
    for option, value in zip(options, given, strict=True):
        if value is not None:
            raise InputError(f"{option} {why}")


def _accelerator(name: str | None, url: str | None, gpus: str, tp: int) -> str:
    """The label of what computes; that of a share of this processor goes without saying."""
    on_this_processor = url is None and not gpus
    if on_this_processor and tp > 1:
        raise InputError(f"--tp {tp} needs as many GPUs: give them with --gpus")
    if name is None and not on_this_processor:
        raise InputError("give --accelerator: the name that specs have for what it runs on")
    return name or "cpu-slot"


def _base_url(url: str) -> str:
    """The address of a server by what people copy: of its API, or of its metrics."""
    return url.rstrip("/").removesuffix("/v1").removesuffix("/metrics").rstrip("/")


def _gpus(text: str) -> tuple[int, ...]:
    if not text:
        return ()
    names = [name.strip() for name in text.split(",")]
    if not all(name.isdecimal() for name in names):
        raise InputError(f"--gpus {text}: give indices as in 0,1,2")
    return tuple(int(name) for name in names)


def _told(profile: "Profile", out: Path) -> str:
    details = profile.details
    assert details is not None
    lines = [f"profile {profile.profile_id}: {out}"]
    for name, fit in (("prefill", details.prefill), ("decode step", details.decode_step)):
        line = f"{name}: {counted(fit.points, 'point')}, {fit.form}"
        if fit.median_error_ratio is not None and fit.p90_error_ratio is not None:
            judged = (
                f"{counted(fit.held_out_points, 'point')} kept from fitting"
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
