"""Options of `poolwise profile import`: where from, of what, and what the source does not know."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from planner.domain.fleet import Role


class Origin(StrEnum):
    """Programs and publications whose figures can be imported."""

    AICONFIGURATOR = "aiconfigurator"
    VLLM_BENCH = "vllm-bench"
    GUIDELLM = "guidellm"
    AIPERF = "aiperf"
    DYNAMO = "dynamo"
    SPLITWISE = "splitwise"
    DISTSERVE = "distserve"
    CSV = "csv"


STATED = "What the source does not know"
"""Panel of the options that replace assumptions."""

FilesArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        help="What is imported: result files or folders of them (vllm-bench, guidellm, aiperf), "
        "a folder (dynamo), a table (splitwise, distserve), two tables (csv), "
        "nothing (aiconfigurator).",
        metavar="[FILE]...",
        show_default=False,
    ),
]
OriginOption = Annotated[
    Origin,
    typer.Option(
        "--from",
        help="Who measured: results of vllm bench serve or sweep, guidellm, AIPerf; Dynamo's "
        "profiler; the public tables of Splitwise and DistServe; tables of your own (csv). "
        "Or estimated: aiconfigurator, NVIDIA's database of operations on GPUs.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="As the source names it, as in Qwen/Qwen3-32B-FP8 or llama2-70b; not needed where "
        "the files name one.",
        metavar="NAME",
    ),
]
AcceleratorOption = Annotated[
    str | None,
    typer.Option("--accelerator", help="Its name in specs; distserve knows its own."),
]
SystemOption = Annotated[
    str | None,
    typer.Option(
        "--system",
        help="The source's name of the machine, if another (aiconfigurator: h100_sxm; splitwise: "
        "a100-80gb).",
    ),
]
RolesOption = Annotated[
    list[Role] | None,
    typer.Option(
        "--role", help="May be planned for this role; give it again for more (default: all)."
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="The model's config.json: KV bytes a token, context, weights; with --memory-gb or a "
        "known accelerator also the KV cache.",
        metavar="FILE",
        rich_help_panel=STATED,
    ),
]
MemoryOption = Annotated[
    float | None,
    typer.Option(
        "--memory-gb", help="Memory of one accelerator, 10^9 bytes.", rich_help_panel=STATED
    ),
]
KvCapacityOption = Annotated[
    int | None,
    typer.Option(
        "--kv-capacity-tokens",
        min=16,
        help="KV cache of one replica, tokens: vLLM logs it as `GPU KV cache size`.",
        rich_help_panel=STATED,
    ),
]
KvBytesOption = Annotated[
    float | None,
    typer.Option(
        "--kv-bytes-per-token", help="KV cache of one token, bytes.", rich_help_panel=STATED
    ),
]
SeqsOption = Annotated[
    int | None,
    typer.Option(
        "--max-num-seqs",
        min=1,
        help="Sequences at once, as vLLM's option (default: as many as were measured; "
        "aiconfigurator: 512).",
        rich_help_panel=STATED,
    ),
]
BatchedOption = Annotated[
    int | None,
    typer.Option(
        "--max-num-batched-tokens",
        min=1,
        help="Tokens a step, as vLLM's option (default: 8192).",
        rich_help_panel=STATED,
    ),
]
LengthOption = Annotated[
    int | None,
    typer.Option(
        "--max-model-len", min=1, help="Longest prompt plus answer, tokens.", rich_help_panel=STATED
    ),
]
StartOption = Annotated[
    float | None,
    typer.Option(
        "--start-up-s", help="From the order to start until it serves, s.", rich_help_panel=STATED
    ),
]
TransferOption = Annotated[
    float | None,
    typer.Option(
        "--transfer-gb-per-s",
        help="KV cache from prefill to decode, through the whole path, 10^9 bytes/s.",
        rich_help_panel=STATED,
    ),
]
