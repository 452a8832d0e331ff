"""What `poolwise profile import` was asked for, read by the importer of its origin."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from planner.domain.errors import InputError, SpecError
from planner.domain.fleet import Role
from planner.domain.model import Model
from planner.domain.profile import Profile
from planner.service.cli.catalogue_option import known_accelerators
from planner.service.cli.profile_import_options import Origin
from planner.service.spec.model_config import Overrides, model_of, read_model_config
from profiler.imports import aiperf, distserve, dynamo, guidellm, plain_csv, splitwise, vllm_bench
from profiler.imports.aiconfigurator import EstimateRequest, import_profile
from profiler.imports.assembly import Given, Imported, assemble

LOAD_TESTS = {
    Origin.VLLM_BENCH: vllm_bench.read,
    Origin.GUIDELLM: guidellm.read,
    Origin.AIPERF: aiperf.read,
}
PUBLISHED = {
    Origin.SPLITWISE: splitwise.ARCHITECTURES,
    Origin.DISTSERVE: distserve.ARCHITECTURES,
}
ESTIMATED_SEQUENCES, ESTIMATED_STEP_TOKENS = 512, 8192
"""Of aiconfigurator, where they are left open."""
BYTES_PER_GB = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options as given; None and (): not given."""

    origin: Origin
    files: tuple[Path, ...]
    model: str | None
    name: str | None
    accelerator: str | None
    system: str | None
    tp: int
    roles: tuple[Role, ...]
    config: Path | None
    memory_gb: float | None
    kv_capacity_tokens: int | None
    kv_bytes_per_token: float | None
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    max_model_len: int | None
    start_up_s: float | None
    transfer_gb_per_s: float | None

    def named_model(self) -> str:
        """The model, where the source needs it to be named."""
        if self.model is None:
            raise InputError(f"--model: name the model, {self.origin} does not by itself")
        return self.model

    def named_accelerator(self) -> str:
        """The accelerator's name in specs."""
        if self.accelerator is not None:
            return self.accelerator
        if self.origin is Origin.DISTSERVE:
            return distserve.ACCELERATOR
        raise InputError("--accelerator: give its name in specs, as in h100")

    def only_file(self) -> Path:
        """The one file or folder of this origin."""
        if len(self.files) != 1:
            raise InputError(
                f"--from {self.origin} takes one file or folder, {len(self.files)} were given"
            )
        return self.files[0]


def profile_asked_for(asked: Asked) -> Profile:
    """The profile of a source, with what was stated and what has to be assumed.

    Raises
    ------
    InputError
        When an option is missing, does not belong to the origin, or makes no sense.
    ProfileError
        When the source is not usable.
    """
    if asked.origin is Origin.AICONFIGURATOR:
        return _estimated(asked)
    if asked.system is not None and asked.origin is not Origin.SPLITWISE:
        raise InputError(f"--system: {asked.origin} has no machines to choose from; leave it out")
    accelerator = asked.named_accelerator()
    found = _imported(asked)
    if None not in (found.model, asked.model) and found.model != asked.model:
        raise InputError(
            f"--model {asked.model}: the source is of {found.model}; --name gives it another "
            "name in specs"
        )
    model = found.model or asked.named_model()
    return assemble(_given(asked, model, accelerator), found)


def _imported(asked: Asked) -> Imported:
    if asked.origin in LOAD_TESTS:
        if not asked.files:
            raise InputError(f"--from {asked.origin} needs the result files, or a folder of them")
        return LOAD_TESTS[asked.origin](asked.files)
    if asked.origin is Origin.CSV:
        return plain_csv.read(asked.files)
    if asked.origin is Origin.DYNAMO:
        return dynamo.read(asked.only_file(), tp=asked.tp)
    if asked.origin is Origin.DISTSERVE:
        return distserve.read(asked.only_file(), model=asked.named_model(), tp=asked.tp)
    return splitwise.imported_from(
        splitwise.read_table(asked.only_file()),
        model=asked.named_model(),
        accelerator=asked.system or asked.named_accelerator(),
        tp=asked.tp,
    )


def _given(asked: Asked, model: str, accelerator: str) -> Given:
    transfer = asked.transfer_gb_per_s
    try:
        return Given(
            model=asked.name or model,
            accelerator=accelerator,
            tp=asked.tp,
            roles=asked.roles or tuple(Role),
            architecture=_architecture(asked, model),
            memory_bytes=_memory_bytes(asked, accelerator),
            kv_capacity_tokens=asked.kv_capacity_tokens,
            kv_bytes_per_token=asked.kv_bytes_per_token,
            max_num_seqs=asked.max_num_seqs,
            max_num_batched_tokens=asked.max_num_batched_tokens,
            max_model_len=asked.max_model_len,
            start_up_s=asked.start_up_s,
            transfer_bytes_per_s=None if transfer is None else transfer * BYTES_PER_GB,
        )
    except ValueError as error:
        raise InputError(f"options: {error}") from error


def _architecture(asked: Asked, model: str) -> Model | None:
    """Of the given config.json; of the published models it is known."""
    if asked.config is None:
        return PUBLISHED.get(asked.origin, {}).get(model)
    try:
        config = read_model_config(asked.config)
        return model_of(config, name=model, priority=0, overrides=Overrides())
    except SpecError as error:
        raise InputError(
            f"--config {asked.config}: {error}; or leave it out and give --kv-bytes-per-token "
            "and --kv-capacity-tokens"
        ) from error


def _memory_bytes(asked: Asked, accelerator: str) -> float | None:
    """As given; of the public tables as published, else the vendor's figure, if it is known."""
    if asked.memory_gb is not None:
        return asked.memory_gb * BYTES_PER_GB
    if asked.origin in PUBLISHED:
        return splitwise.MEMORY_BYTES
    facts = known_accelerators().find(accelerator)
    return None if facts is None else facts.memory_bytes


def _estimated(asked: Asked) -> Profile:
    foreign = {
        "FILE": asked.files,
        "--config": asked.config,
        "--memory-gb": asked.memory_gb,
        "--kv-capacity-tokens": asked.kv_capacity_tokens,
        "--kv-bytes-per-token": asked.kv_bytes_per_token,
        "--max-model-len": asked.max_model_len,
        "--start-up-s": asked.start_up_s,
        "--transfer-gb-per-s": asked.transfer_gb_per_s,
    }
    given = [option for option, value in foreign.items() if value not in (None, ())]
    if given:
        raise InputError(f"{', '.join(given)}: not for aiconfigurator, which knows; leave it out")
    request = EstimateRequest(
        model_path=asked.named_model(),
        accelerator=asked.named_accelerator(),
        tp=asked.tp,
        name=asked.name,
        system=asked.system,
        roles=asked.roles or tuple(Role),
        max_num_seqs=asked.max_num_seqs or ESTIMATED_SEQUENCES,
        max_num_batched_tokens=asked.max_num_batched_tokens or ESTIMATED_STEP_TOKENS,
    )
    return import_profile(request, asked_at=datetime.now(UTC))
