"""`poolwise profile import`: a profile from what another program measured or knows."""

from typing import TYPE_CHECKING

from planner.service.cli.options import JsonOption
from planner.service.cli.profile_import_options import (
    AcceleratorOption,
    BatchedOption,
    ConfigOption,
    FilesArgument,
    KvBytesOption,
    KvCapacityOption,
    LengthOption,
    MemoryOption,
    ModelOption,
    Origin,
    OriginOption,
    RolesOption,
    SeqsOption,
    StartOption,
    SystemOption,
    TransferOption,
)
from planner.service.cli.profile_options import NameOption, OutOption, TpOption

if TYPE_CHECKING:
    from pathlib import Path

    from planner.domain.profile import Profile

EPILOG = (
    "Examples:\n\n"
    "poolwise profile import --from vllm-bench results/ --accelerator h100 "
    "--config config.json --out p.json\n\n"
    "poolwise profile import --from guidellm benchmarks.json --accelerator h100 "
    "--kv-capacity-tokens 430000 --kv-bytes-per-token 131072 --out p.json\n\n"
    "poolwise profile import --from aiperf artifacts/ --accelerator h100 --config config.json "
    "--out p.json\n\n"
    "poolwise profile import --from dynamo profiling_results/ --model llama-70b "
    "--accelerator h100 --tp 4 --out p.json\n\n"
    "poolwise profile import --from splitwise perf_model.csv --model llama2-70b "
    "--accelerator a100-80gb --tp 8 --out p.json\n\n"
    "poolwise profile import --from distserve profiler-a100-80g.distserve.json "
    "--model facebook/opt-13b --tp 2 --out p.json\n\n"
    "poolwise profile import --from csv prefill.csv decode.csv --model chat --accelerator h100 "
    "--out p.json\n\n"
    "poolwise profile import --from aiconfigurator --model Qwen/Qwen3-32B --accelerator h100 "
    "--tp 2 --out p.json\n\n"
    "What was refused, derived or assumed is printed, and kept in the profile: docs/profiles.md."
)


def import_(
    files: FilesArgument = None,
    *,
    out: OutOption,
    origin: OriginOption,
    model: ModelOption = None,
    name: NameOption = None,
    accelerator: AcceleratorOption = None,
    system: SystemOption = None,
    tp: TpOption = 1,
    roles: RolesOption = None,
    config: ConfigOption = None,
    memory_gb: MemoryOption = None,
    kv_capacity_tokens: KvCapacityOption = None,
    kv_bytes_per_token: KvBytesOption = None,
    max_num_seqs: SeqsOption = None,
    max_num_batched_tokens: BatchedOption = None,
    max_model_len: LengthOption = None,
    start_up_s: StartOption = None,
    transfer_gb_per_s: TransferOption = None,
    json: JsonOption = False,
) -> None:
    """Make a profile of what another program measured or knows of a replica.

    Units are converted to seconds, tokens and bytes. What a source does not know (KV cache,
    transfer, start-up) is taken from the options, else assumed; the profile says so.
    """
    from planner.service.cli.profile_origins import Asked, profile_asked_for
    from planner.service.whole_file import check_writable
    from profiler.files import write_profile

    paths = tuple(files or ())
    check_writable(out, option="--out", inputs=paths)
    asked = Asked(
        origin=origin,
        files=paths,
        model=model,
        name=name,
        accelerator=accelerator,
        system=system,
        tp=tp,
        roles=tuple(dict.fromkeys(roles or ())),
        config=config,
        memory_gb=memory_gb,
        kv_capacity_tokens=kv_capacity_tokens,
        kv_bytes_per_token=kv_bytes_per_token,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        max_model_len=max_model_len,
        start_up_s=start_up_s,
        transfer_gb_per_s=transfer_gb_per_s,
    )
    profile = profile_asked_for(asked)
    write_profile(profile, out)
    _say(profile, origin, out, json=json)


def _say(profile: "Profile", origin: Origin, out: "Path", *, json: bool) -> None:
    from planner.service.cli import output
    from profiler.files import profile_document

    if json:
        output.print_json(profile_document(profile))
        return
    source = profile.provenance
    output.note(
        f"profile {profile.profile_id} from {origin}: {out}, {source.kind.upper()} {source.source}"
    )
    for line in source.notes:
        output.note(f"  - {line}")
