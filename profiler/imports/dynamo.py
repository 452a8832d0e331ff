"""Profiles of NVIDIA Dynamo's planner: the profiler's `raw_data.npz`, read and written.

The files of ai-dynamo 1.6.1 (`dynamo/profiler/utils/profile_prefill.py`, `profile_decode.py`; read
by `dynamo/planner/monitoring/perf_metrics.py`) in one folder:

* `selected_prefill_interpolation/raw_data.npz`: `prefill_isl` (tokens), `prefill_ttft` (ms),
  `prefill_thpt_per_gpu` (prompt tokens/s/GPU).
* `selected_decode_interpolation/raw_data.npz`: `x_kv_usage` (share of the KV cache that is active),
  `y_context_length` (tokens a sequence), `z_itl` (ms), `z_thpt_per_gpu` (tokens/s/GPU),
  `max_kv_tokens` (one number, tokens); points in no order.
* or the same arrays as `prefill_raw_data.json` and `decode_raw_data.json`.

A point of decode is a batch of x_kv_usage x max_kv_tokens / y_context_length sequences. Dynamo has
no cached tokens, transfer, limits of sequences or start-up: they are assumed on reading, lost on
writing. The mocker's lookup file (`prefill_ttft_ms`, `decode_active_kv_tokens`) is a fit on a grid,
not what was measured, and is refused.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.domain.errors import ProfileError
from planner.domain.profile import Profile
from profiler.imports.assembly import Imported
from profiler.imports.reading import (
    LARGEST_BYTES,
    LONGEST_PROMPT_S,
    LONGEST_STEP_S,
    MOST_TOKENS,
    MS,
    Fields,
    checked_seconds,
    file_time,
    parse_json,
    read_text,
)
from profiler.imports.tables import Floats, Point, decode_table, prefill_table
from profiler.whole_files import write_whole_files

WHAT = "a folder of Dynamo's profiler (with selected_prefill_interpolation/raw_data.npz)"
PREFILL = (Path("selected_prefill_interpolation/raw_data.npz"), Path("prefill_raw_data.json"))
DECODE = (Path("selected_decode_interpolation/raw_data.npz"), Path("decode_raw_data.json"))
PREFILL_FIELDS = ("prefill_isl", "prefill_ttft", "prefill_thpt_per_gpu")
DECODE_FIELDS = ("x_kv_usage", "y_context_length", "z_itl", "z_thpt_per_gpu")
KV_FIELD = "max_kv_tokens"
WHOLE_GPUS = 0.02
"""The number of GPUs that follows from time and throughput is this near to a whole one."""
FIRST_TOKENS = 128.0
"""Of the points that are written where a table begins at 0 tokens."""
FEWEST_PROMPTS = 4
"""Its planner lays a cubic spline through the prompts: with fewer it does not start."""
MS_PER_S = 1e3
_BROKEN_ARCHIVES = (zipfile.BadZipFile, zlib.error, RuntimeError, KeyError)
"""What zipfile raises where a directory, a packed file, a version or a flag (encrypted: a
RuntimeError, as all that it does not support is) is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Written:
    """What an export wrote, and what Dynamo's format could not hold."""

    files: tuple[Path, ...]
    notes: tuple[str, ...]


def read(folder: Path, *, tp: int) -> Imported:
    """The profile in a folder.

    Parameters
    ----------
    tp : int
        Accelerators of one replica as the caller states; noted where the files say otherwise.

    Raises
    ------
    ProfileError
        When a file or array is missing, broken, or holds values of other units.
    """
    if not folder.is_dir():
        raise ProfileError(f"{folder} is no folder; give {WHAT}")
    prefill_path, decode_path = _one_of(folder, PREFILL), _one_of(folder, DECODE)
    isl, ttft, prefill_rate = _arrays(prefill_path, PREFILL_FIELDS)
    usage, context, itl = _arrays(decode_path, DECODE_FIELDS[:3])
    _arrays(decode_path, ("y_context_length",), least=1)
    (kv_tokens,) = _arrays(decode_path, (KV_FIELD,), least=1)
    prompt_s = _seconds(prefill_path, "prefill_ttft", ttft, LONGEST_PROMPT_S)
    prompts = prefill_table(_points(isl, np.zeros(len(isl)), prompt_s))
    capacity = float(kv_tokens[0])
    batch = np.round(usage * capacity / context, 6)
    _check_usage(decode_path, usage, batch)
    step_s = _seconds(decode_path, "z_itl", itl, LONGEST_STEP_S)
    steps = decode_table(_points(batch, context, step_s))
    gpus = _gpus(prefill_path, isl * MS_PER_S / (ttft * prefill_rate))
    return Imported(
        prefill=prompts.table,
        decode_step=steps.table,
        source="Dynamo's profiler (raw_data.npz)",
        machine="not stated by the source",
        engine="not stated by the source",
        measured_at=max(file_time(prefill_path), file_time(decode_path)),
        points=len(isl) + len(itl),
        held_tokens=int(capacity),
        longest_tokens=int(max(isl.max(), context.max())),
        kv_capacity_tokens=int(capacity),
        notes=(
            "KV cache as the source states it (max_kv_tokens)",
            "prefill: TTFT of one prompt alone, with all up to the first token, so first_token_s "
            "is 0; cached tokens are not in it, and their effect is not known",
            "decode step: batch = x_kv_usage x max_kv_tokens / y_context_length",
            "measured_at is when the files were changed last: they hold no instant",
            *_gpu_notes(gpus, tp),
            *prompts.notes,
            *steps.notes,
        ),
    )


def write(profile: Profile, folder: Path) -> Written:
    """Write a profile as Dynamo's planner reads it.

    Raises
    ------
    ProfileError
        When no point is within what Dynamo can hold, or the folder cannot be written to.
    """
    gpus = profile.tp * profile.pp * profile.dp
    capacity = profile.limits.kv_capacity_tokens
    isl, ttft = _prompts(profile)
    batch, context, itl = _steps(profile)
    if len(isl) == 0 or len(batch) == 0:
        raise ProfileError(
            f"{profile.profile_id}: no decode point fits the KV cache of {capacity:,} "
            "tokens: nothing to export"
        )
    _check_spread(profile, batch * context / capacity, context)
    prefill = dict(zip(PREFILL_FIELDS, (isl, ttft, isl * MS_PER_S / ttft / gpus), strict=True))
    decode = dict(
        zip(
            DECODE_FIELDS,
            (batch * context / capacity, context, itl, batch * MS_PER_S / itl / gpus),
            strict=True,
        )
    )
    decode[KV_FIELD] = np.array([capacity])
    contents = {
        folder / PREFILL[0]: _npz(prefill),
        folder / DECODE[0]: _npz(decode),
    }
    write_whole_files(contents)
    return Written(files=tuple(contents), notes=_lost(profile, len(isl), len(itl)))


def _prompts(profile: Profile) -> tuple[Floats, Floats]:
    """Tokens and ms of prompts of which nothing is cached; Dynamo counts whole tokens above 0."""
    table = profile.prefill
    tokens = np.unique(np.round(_above_zero(table.x, FIRST_TOKENS)))
    if len(tokens) < FEWEST_PROMPTS:  # what lies between is interpolated, as when it is planned
        more = np.geomspace(tokens[0], tokens[-1], FEWEST_PROMPTS)
        tokens = np.union1d(tokens, np.round(more))
    if len(tokens) < FEWEST_PROMPTS:
        raise ProfileError(
            f"{profile.profile_id}: prompts of {_named(tokens)} tokens only: Dynamo's planner "
            f"interpolates through {FEWEST_PROMPTS} lengths at least, so measure longer ones, too"
        )
    return tokens, table.extended_at(tokens, table.y[0]) * MS_PER_S


def _steps(profile: Profile) -> tuple[Floats, Floats, Floats]:
    """Sequences, context and ms of every step that was measured and fits the KV cache."""
    table, limits = profile.decode_step, profile.limits
    contexts = table.y
    if len(contexts) == 1:  # no difference: the same at the longest context, too
        contexts = np.unique([max(contexts[0], 1.0), float(limits.max_model_len)])
    b, c = np.broadcast_arrays(
        _above_zero(table.x, 1.0)[:, None], _above_zero(contexts, FIRST_TOKENS)[None, :]
    )
    fits = (b * c <= limits.kv_capacity_tokens) & table.covers(b, c)
    return b[fits], c[fits], table.extended_at(b[fits], c[fits]) * MS_PER_S


def _check_spread(profile: Profile, usage: Floats, context: Floats) -> None:
    """Refuse steps between which its planner cannot interpolate: all on one line."""
    at = np.column_stack([usage / usage.max(), context / context.max()])
    if np.linalg.matrix_rank(at - at.mean(axis=0), tol=1e-9) < 2:
        raise ProfileError(
            f"{profile.profile_id}: decode steps of one batch or one context fit the KV cache: "
            "Dynamo's planner interpolates over both, so measure other batches, too"
        )


def _named(values: Floats) -> str:
    return ", ".join(f"{v:,.0f}" for v in values)


def _above_zero(axis: Floats, first: float) -> Floats:
    """The points of an axis; doublings from `first` where it begins at 0, which nobody measures."""
    if axis[0] > 0:
        return axis
    doublings = first * 2.0 ** np.arange(64)
    return np.union1d(doublings[doublings < axis[-1]], axis[axis > 0])


def _lost(profile: Profile, prompts: int, steps: int) -> tuple[str, ...]:
    table = profile.decode_step
    notes = ["Dynamo holds no KV transfer, engine limits, start-up or role flips: not written"]
    if prompts > len(profile.prefill.x[profile.prefill.x > 0]) and profile.prefill.x[0] > 0:
        notes.append(
            f"{len(profile.prefill.x)} prompt lengths are too few for Dynamo's planner: "
            f"interpolated to {prompts}"
        )
    if len(profile.prefill.y) > 1:
        notes.append(
            "Dynamo holds no cached tokens: of prefill, only the column with "
            f"{profile.prefill.y[0]:g} was written, {len(profile.prefill.y) - 1} others were not"
        )
    if len(table.y) == 1:
        notes.append("steps are alike at every context in this profile: written at two of them")
    elif steps < table.seconds.size:
        notes.append(
            f"{table.seconds.size - steps} of {table.seconds.size} decode points hold more tokens "
            f"than the KV cache{'' if table.reach is None else ', or were not measured'}: not "
            "written"
        )
    return tuple(notes)


def _npz(arrays: Mapping[str, Floats]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _one_of(folder: Path, names: tuple[Path, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    wanted = " or ".join(str(name) for name in names)
    raise ProfileError(f"{folder}: neither {wanted} is in it; give {WHAT}")


def _arrays(path: Path, names: tuple[str, ...], *, least: float = 0.0) -> tuple[Floats, ...]:
    """Arrays of one length, finite and above `least`."""
    content = _npz_content(path) if path.suffix == ".npz" else _json_content(path)
    found: list[Floats] = []
    for name in names:
        if name not in content:
            held = ", ".join(sorted(content)) or "nothing"
            raise ProfileError(f"{path}: no array {name}, it holds {held}; give {WHAT}")
        found.append(_checked(path, name, content[name], least))
    for name, array in zip(names, found, strict=True):
        if len(array) != len(found[0]):
            raise ProfileError(
                f"{path}: {name} has {len(array)} values, {names[0]} {len(found[0])}: half a file?"
            )
    return tuple(found)


def _checked(path: Path, name: str, value: object, least: float) -> Floats:
    try:
        array = np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ProfileError(f"{path}: {name}: not numbers: {error}") from error
    if array.ndim != 1 or len(array) == 0:
        raise ProfileError(f"{path}: {name}: has shape {array.shape}, not one row of values")
    wrong = ~(np.isfinite(array) & (array > 0) & (array >= least) & (array <= MOST_TOKENS))
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ProfileError(
            f"{_at(path, name, i)}: {array[i]:g} is no measurement: leave this point out"
        )
    return array


def _npz_content(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ProfileError(f"{path} is larger than {LARGEST_BYTES:,} bytes: not {WHAT}")
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {str(name): file[name] for name in file.files}
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, *_BROKEN_ARCHIVES) as error:
        raise ProfileError(f"{path}: not a whole NPZ file: {error}") from error


def _json_content(path: Path) -> Mapping[str, object]:
    value = parse_json(read_text(path, what=WHAT), where=str(path), what=WHAT)
    return Fields.of(value, where=str(path), what=WHAT).values


def _check_usage(path: Path, usage: Floats, batch: Floats) -> None:
    for i, share in enumerate(usage):
        if share > 1.5:
            raise ProfileError(
                f"{_at(path, 'x_kv_usage', i)}: {share:g} is a share of the KV cache, 0 to 1: is "
                "it in percent or tokens?"
            )
        if batch[i] < 0.5:
            raise ProfileError(
                f"{_at(path, 'x_kv_usage', i)}: {share:g} of the KV cache is less than one "
                "sequence of its context: are max_kv_tokens and y_context_length of this engine?"
            )


def _gpus(path: Path, ratio: Floats) -> int:
    """GPUs of a replica by time and throughput."""
    found = float(np.median(ratio))
    whole = round(found)
    if whole >= 1 and abs(found / whole - 1) <= WHOLE_GPUS:
        return whole
    raise ProfileError(
        f"{path}: prefill_isl / (prefill_ttft x prefill_thpt_per_gpu) says {found:.4g} GPUs a "
        "replica: is prefill_ttft in ms, and the throughput in tokens/s/GPU?"
    )


def _gpu_notes(gpus: int, tp: int) -> tuple[str, ...]:
    if gpus == tp:
        return ()
    return (
        f"its prefill throughput per GPU says {gpus} GPUs a replica, but tp {tp} was stated: one "
        "of them is wrong, or attention is data parallel",
    )


def _points(x: Floats, y: Floats, seconds: Floats) -> list[Point]:
    rows = zip(x.tolist(), y.tolist(), seconds.tolist(), strict=True)
    return [Point(x=a, y=b, seconds=s) for a, b, s in rows]


def _seconds(path: Path, name: str, ms: Floats, most_s: float) -> Floats:
    return np.array(
        [
            checked_seconds(float(value), MS, where=_at(path, name, i), most_s=most_s)
            for i, value in enumerate(ms)
        ]
    )


def _at(path: Path, name: str, i: int) -> str:
    return f"{path}: {name}[{i}]"
