"""What `poolwise profile run` was asked for: where, of what, how far and how long."""

from dataclasses import dataclass
from pathlib import Path

from planner.domain.errors import InputError
from planner.domain.fleet import Role
from profiler.samples import Kind


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the profile is to reach; None: what the engine takes, within reason.

    Parameters
    ----------
    prompt, cached, context : int or None
        Longest prompt to compute, cached prefix, and context decoded, tokens.
    batch : int or None
        Most sequences decoded together.
    """

    prompt: int | None
    cached: int | None
    batch: int | None
    context: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the user asked for; None: found out, or a default (see the command's help)."""

    out: Path
    url: str | None = None
    metrics_url: str | None = None
    model: str
    name: str | None = None
    accelerator: str = "cpu-slot"
    role: str = "pair"
    tp: int = 1
    gpus: tuple[int, ...] = ()
    cores: float
    engine_flags: tuple[str, ...] = ()
    quick: bool = False
    budget_s: float | None = None
    target_ratio: float = 0.03
    covers: Coverage
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    kv_capacity_tokens: int | None = None
    kv_bytes_per_token: float | None = None
    start_s: float | None = None
    machine: str | None = None
    words: Path | None = None
    fresh: bool = False
    start_timeout_s: float = 300.0

    def __post_init__(self) -> None:
        if not 0.001 <= self.target_ratio <= 1:
            raise InputError(f"--target-error {self.target_ratio:g} must lie in 0.001..1")
        if self.budget_s is not None and not 10 <= self.budget_s <= 86_400:
            raise InputError(f"--budget-s {self.budget_s:g} must lie in 10..86400 seconds")
        for option, value in (
            ("--max-prompt", self.covers.prompt),
            ("--max-batch", self.covers.batch),
            ("--max-context", self.covers.context),
            ("--max-model-len", self.max_model_len),
            ("--max-num-seqs", self.max_num_seqs),
            ("--max-num-batched-tokens", self.max_num_batched_tokens),
            ("--kv-capacity-tokens", self.kv_capacity_tokens),
        ):
            if value is not None and value < 1:
                raise InputError(f"{option} {value} must be at least 1")
        if self.covers.cached is not None and self.covers.cached < 0:
            raise InputError(f"--max-cached {self.covers.cached} must be at least 0")
        if not 10 <= self.start_timeout_s <= 86_400:
            raise InputError(
                f"--start-timeout-s {self.start_timeout_s:g} must lie in 10..86400 seconds"
            )
        if self.url is None and self.metrics_url is not None:
            raise InputError("--metrics-url goes with --url")
        if self.kv_bytes_per_token is not None and not 0 < self.kv_bytes_per_token <= 1e12:
            raise InputError(
                f"--kv-bytes-per-token {self.kv_bytes_per_token:g} must lie above 0 and be at most "
                "1e12 bytes"
            )
        if self.start_s is not None and not 0 <= self.start_s <= 86_400:
            raise InputError(f"--start-s {self.start_s:g} must lie in 0..86400 seconds")
        self._check_gpus()

    def _check_gpus(self) -> None:
        if not self.gpus:
            return
        named = ",".join(map(str, self.gpus))
        if len(set(self.gpus)) < len(self.gpus):
            raise InputError(f"--gpus {named}: each GPU once")
        needed = self.tp * len(self.roles)
        if len(self.gpus) < needed:
            raise InputError(
                f"--gpus {named}: --role {self.role} at --tp {self.tp} takes {needed} GPUs: "
                + ("name as many, or measure one worker (--role)" if self.is_pair else "name them")
            )

    @property
    def is_pair(self) -> bool:
        """Whether KV caches move."""
        return self.role == "pair"

    @property
    def roles(self) -> tuple[Role, ...]:
        """What the profile may be used for."""
        return (Role.PREFILL, Role.DECODE) if self.is_pair else (Role(self.role),)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Tables that are measured."""
        tables = (Kind.PREFILL, Kind.DECODE)
        return (*tables, Kind.MIXED) if self.role == "aggregated" else tables
