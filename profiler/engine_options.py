"""What options that are handed on to vLLM change of what a profile says of the engine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from planner.domain.errors import InputError
from planner.domain.model import Dtype

_ASKED_BY = {
    "--max-model-len": "--max-model-len",
    "--max-num-seqs": "--max-num-seqs",
    "--max-num-batched-tokens": "--max-num-batched-tokens",
    "--tensor-parallel-size": "--tp",
    "-tp": "--tp",
    "--served-model-name": "--name",
}
_OURS = (
    "--host",
    "--port",
    "--kv-transfer-config",
    "--pipeline-parallel-size",
    "-pp",
    "--data-parallel-size",
    "-dp",
    "--prefill-context-parallel-size",
    "-pcp",
    "--nnodes",
    "-n",
)
_FILE = "--config"
"""Of vLLM: a file of any options."""
_NUMBERS = {
    "float32": Dtype.FLOAT32,
    "float": Dtype.FLOAT32,
    "float16": Dtype.FLOAT16,
    "half": Dtype.FLOAT16,
    "bfloat16": Dtype.BFLOAT16,
}
_KV_FORMATS = {
    "float16": Dtype.FLOAT16,
    "bfloat16": Dtype.BFLOAT16,
    "fp8": Dtype.FP8,
    "fp8_e4m3": Dtype.FP8,
    "fp8_e5m2": Dtype.FP8,
}
"""`--kv-cache-dtype` of vLLM 0.32, as far as its bytes a value are known here."""

_READ = (
    "--dtype",
    "--kv-cache-dtype",
    "--quantization",
    "--async-scheduling",
    "--no-async-scheduling",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What was asked for; None: what vLLM does unless told.

    Parameters
    ----------
    computes_in : Dtype or None
        Format of numbers in memory, that of the KV cache too where nothing else is said.
    weight_dtype, kv_dtype : Dtype or None
    async_scheduling : bool or None
        Whether a step is composed while the one before runs.
    """

    computes_in: Dtype | None = None
    weight_dtype: Dtype | None = None
    kv_dtype: Dtype | None = None
    async_scheduling: bool | None = None


def read_engine_options(flags: Sequence[str]) -> EngineOptions:
    """What options of the command line of an engine say; the last of several counts, as there.

    Raises
    ------
    InputError
        For options that have one of their own here, or that nothing could be measured with.
    """
    given = dict(_pairs(flags))
    if _FILE in given:
        raise InputError(
            f"--engine-flag {_FILE}: the profile would not know what the file says: give its "
            "options one by one"
        )
    for name, own in _ASKED_BY.items():
        if name in given:
            raise InputError(
                f"--engine-flag {name}: the profile would not know of it: give it as {own}"
            )
    for name in _OURS:
        if name in given:
            raise InputError(f"--engine-flag {name}: is set by whoever launches the engine here")
    computes_in = _known("--dtype", given, _NUMBERS)
    eight_bits = given.get("--quantization", given.get("-q")) == "fp8"
    return EngineOptions(
        computes_in=computes_in,
        weight_dtype=Dtype.FP8 if eight_bits else computes_in,
        kv_dtype=_known("--kv-cache-dtype", given, _KV_FORMATS) or computes_in,
        async_scheduling=_switched("async-scheduling", given),
    )


def _pairs(flags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options and their values, written as `--name=value` or as two words.

    With underscores as well, and cut short as vLLM's parser takes them.
    """
    for word, following in zip_longest(flags, flags[1:], fillvalue=""):
        if word.startswith("-"):
            name, equals, value = word.partition("=")
            spelled = _whole_name(name.replace("_", "-"))
            yield spelled, value if equals else "" if following.startswith("-") else following


def _whole_name(name: str) -> str:
    """The option that an abbreviation stands for; itself where it is none of those known here."""
    known = (*_ASKED_BY, *_OURS, _FILE, *_READ)
    if name in known or not name.startswith("--") or name == "--":
        return name
    return next((whole for whole in known if whole.startswith(name)), name)


def _known(name: str, given: dict[str, str], formats: dict[str, Dtype]) -> Dtype | None:
    value = given.get(name, "auto")
    if value == "auto":
        return None
    if value not in formats:
        raise InputError(
            f"--engine-flag {name} {value}: a format whose bytes are not known here; known are "
            f"auto, {', '.join(formats)}"
        )
    return formats[value]


def _switched(name: str, given: dict[str, str]) -> bool | None:
    """The later of `--name` and `--no-name`; None: neither."""
    said = [option for option in given if option in (f"--{name}", f"--no-{name}")]
    return None if not said else not said[-1].startswith("--no-")
