"""Options of `poolwise profile run`: which engine, where it runs, how far and how long."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Measured(StrEnum):
    """What is measured: a routed pair, or one worker."""

    PAIR = "pair"
    PREFILL = "prefill"
    DECODE = "decode"
    AGGREGATED = "aggregated"


UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url", help="A running server or P/D router, without /v1; default: launch one here."
    ),
]
MetricsUrlOption = Annotated[
    str | None,
    typer.Option("--metrics-url", help="With --url of a router: a decode worker's address."),
]
ModelOption = Annotated[
    str,
    typer.Option("--model", help="tiny, smollm2, or a model's folder; with --url its served name."),
]
AcceleratorOption = Annotated[
    str | None,
    typer.Option(
        "--accelerator", help="Its name in specs; cpu-slot for a share of this processor."
    ),
]
RoleOption = Annotated[
    Measured,
    typer.Option(
        "--role", help="pair: prefill and decode worker behind a P/D router; or one of a role."
    ),
]
GpusOption = Annotated[
    str, typer.Option("--gpus", help="Launch on these GPUs, as 0,1,2; default: the processor.")
]
CoresOption = Annotated[
    float | None,
    typer.Option(
        "--cores", help="Without GPUs: processor share of one worker, cores; default: 0.5."
    ),
]
EngineFlagOption = Annotated[
    list[str] | None,
    typer.Option("--engine-flag", help="Passed on to vLLM, as --engine-flag=--no-enable-…"),
]
QuickOption = Annotated[
    bool, typer.Option("--quick", help="Two minutes of measuring instead of ten.")
]
BudgetSOption = Annotated[
    float | None,
    typer.Option("--budget-s", help="Measure no longer (engine starts excluded), seconds."),
]
TargetErrorOption = Annotated[
    float, typer.Option("--target-error", help="Stop where nothing is in doubt by more, 0..1.")
]
MaxPromptOption = Annotated[
    int | None, typer.Option("--max-prompt", help="Longest prompt to compute, tokens.")
]
MaxCachedOption = Annotated[
    int | None, typer.Option("--max-cached", help="Longest cached prefix, tokens; 0: none.")
]
MaxBatchOption = Annotated[
    int | None, typer.Option("--max-batch", help="Most sequences decoded together.")
]
MaxContextOption = Annotated[
    int | None, typer.Option("--max-context", help="Longest context decoded, tokens.")
]
MaxModelLenOption = Annotated[
    int | None, typer.Option("--max-model-len", help="As vLLM's option, tokens.")
]
MaxNumSeqsOption = Annotated[int | None, typer.Option("--max-num-seqs", help="As vLLM's option.")]
MaxNumBatchedTokensOption = Annotated[
    int | None, typer.Option("--max-num-batched-tokens", help="As vLLM's option, tokens.")
]
KvCapacityTokensOption = Annotated[
    int | None,
    typer.Option("--kv-capacity-tokens", help="With --url: where /metrics does not tell it."),
]
KvBytesPerTokenOption = Annotated[
    float | None, typer.Option("--kv-bytes-per-token", help="With --url, bytes.")
]
StartSOption = Annotated[
    float | None, typer.Option("--start-s", help="With --url: how long a start takes, seconds.")
]
StartTimeoutSOption = Annotated[
    float,
    typer.Option(
        "--start-timeout-s",
        help="Launched here: a worker has its first token by then, or has failed, seconds.",
    ),
]
MachineOption = Annotated[
    str | None, typer.Option("--machine", help="With --url: what it runs on, for provenance.")
]
WordsOption = Annotated[
    Path | None,
    typer.Option(
        "--words", help="With --url: single-token words (JSON list), if asking finds too few."
    ),
]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Begin anew; an earlier run's journal is moved aside.")
]
