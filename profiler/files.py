"""Profiles as JSON files: schema `poolwise/profile/v1`.

The file holds what `planner.domain.profile.Profile` holds, in the same units (seconds, tokens,
bytes). It is validated on reading and converted at once; nothing else of Poolwise sees it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import AwareDatetime, Field, StrictBool, ValidationError

from planner.domain.errors import ProfileError
from planner.domain.fleet import Role
from planner.domain.model import Dtype
from planner.domain.profile import (
    EngineLimits,
    LifecycleTimes,
    Profile,
    ProfileKind,
    Provenance,
    TimeTable,
    TransferTime,
)
from profiler.documents import Count, DetailsDocument, Quantity, Seconds, StrictDocument
from profiler.whole_files import write_whole_files

SCHEMA = "poolwise/profile/v1"
LARGEST_BYTES = 64 * 1024 * 1024
"""A larger file is no profile: refused before it is parsed."""


class TableDocument(StrictDocument):
    """A time table: `seconds[i][j]` was measured at `x[i]`, `y[j]`."""

    x_name: str = Field(description="what x counts, as in `new tokens`")
    y_name: str = Field(description="what y counts, as in `cached tokens`")
    x: list[Quantity] = Field(min_length=1, description="increasing, in units of x_name")
    y: list[Quantity] = Field(min_length=1, description="increasing, in units of y_name")
    seconds: list[list[Seconds]] = Field(description="one row per x, one column per y, seconds")
    reach: list[Quantity] | None = Field(
        default=None,
        description="the largest y known at each x; null: all of y, and any where y has one value",
    )

    @classmethod
    def of(cls, table: TimeTable) -> Self:
        """The document of a table."""
        return cls(
            x_name=table.x_name,
            y_name=table.y_name,
            x=table.x.tolist(),
            y=table.y.tolist(),
            seconds=table.seconds.tolist(),
            reach=None if table.reach is None else table.reach.tolist(),
        )

    def table(self) -> TimeTable:
        """The table; ValueError when it is not rectangular, increasing, finite and positive."""
        if any(len(row) != len(self.y) for row in self.seconds):
            raise ValueError(f"every row of seconds needs {len(self.y)} values, one per y")
        seconds = np.asarray(self.seconds, dtype=np.float64).reshape(len(self.seconds), -1)
        return TimeTable(
            x_name=self.x_name,
            y_name=self.y_name,
            x=np.asarray(self.x, dtype=np.float64),
            y=np.asarray(self.y, dtype=np.float64),
            seconds=seconds,
            reach=None if self.reach is None else np.asarray(self.reach, dtype=np.float64),
        )


class TransferDocument(StrictDocument):
    """Moving one request's KV cache through the P/D path: base + bytes / bandwidth."""

    base_s: Seconds
    bandwidth_bytes_per_s: float = Field(ge=1, le=1e18, description="bytes/s through the P/D path")


class LimitsDocument(StrictDocument):
    """What one replica admits at once."""

    kv_capacity_tokens: Count
    kv_bytes_per_token: float = Field(gt=0, le=1e12, description="bytes")
    max_num_seqs: Count
    max_num_batched_tokens: Count
    max_model_len: Count
    kv_block_tokens: Count = 16
    async_scheduling: StrictBool = Field(
        default=False, description="whether the engine composes a step while the one before runs"
    )
    late_kv_notice: StrictBool = Field(
        default=False,
        description="whether a busy engine hears of an arrived KV cache a step later",
    )


class LifecycleDocument(StrictDocument):
    """How long changes of a replica take."""

    start_cold_s: Seconds
    start_warm_s: Seconds
    flip_s: Seconds
    drain_s: Seconds


class ProvenanceDocument(StrictDocument):
    """Where the numbers come from."""

    kind: ProfileKind
    source: str
    measured_at: AwareDatetime
    machine: str
    engine: str
    points: int = Field(ge=0, description="measured points behind the tables")
    error_ratio: float = Field(ge=0, description="median relative error, 0..1")
    notes: tuple[str, ...] = Field(
        default=(), description="rows refused, quantities assumed, disturbances seen"
    )


class ProfileDocument(StrictDocument):
    """What one replica of a model on an accelerator does, as stored."""

    schema_version: Literal["poolwise/profile/v1"]
    profile_id: str | None = Field(default=None, description="content hash; may be left out")
    model: str
    accelerator: str
    tp: Count = 1
    pp: Count = 1
    dp: Count = 1
    roles: list[Role] = Field(min_length=1)
    prefill: TableDocument
    decode_step: TableDocument
    transfer: TransferDocument
    first_token_s: Seconds
    limits: LimitsDocument
    lifecycle: LifecycleDocument
    provenance: ProvenanceDocument
    step_ratios: tuple[Annotated[float, Field(gt=0, le=1e3)], ...] = ()
    weight_dtype: Dtype | None = Field(default=None, description="null: the model's own")
    kv_dtype: Dtype | None = Field(default=None, description="null: the model's own")
    details: DetailsDocument | None = Field(
        default=None, description="how it was measured; null: not by `poolwise profile run`"
    )


def profile_id_of(profile: Profile) -> str:
    """The id that follows from a profile's content: equal content, equal id."""
    content = profile_document(profile).model_dump(mode="json", exclude={"profile_id"})
    if not content["step_ratios"]:  # as before there were any
        del content["step_ratios"]
    for later in ("async_scheduling", "late_kv_notice"):
        if not content["limits"][later]:
            del content["limits"][later]
    if not content["provenance"]["notes"]:
        del content["provenance"]["notes"]
    for table in ("prefill", "decode_step"):
        if content[table]["reach"] is None:
            del content[table]["reach"]
    for later in ("weight_dtype", "kv_dtype", "details"):
        if content[later] is None:
            del content[later]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return "profile-" + hashlib.sha256(text.encode()).hexdigest()[:12]


def with_profile_id(profile: Profile) -> Profile:
    """The same profile under the id of its content."""
    return replace(profile, profile_id=profile_id_of(profile))


def profile_document(profile: Profile) -> ProfileDocument:
    """The document of a profile, with the profile's own `profile_id`."""
    limits, lifecycle, provenance = profile.limits, profile.lifecycle, profile.provenance
    return ProfileDocument(
        schema_version=SCHEMA,
        profile_id=profile.profile_id,
        model=profile.model,
        accelerator=profile.accelerator,
        tp=profile.tp,
        pp=profile.pp,
        dp=profile.dp,
        roles=list(profile.roles),
        prefill=TableDocument.of(profile.prefill),
        decode_step=TableDocument.of(profile.decode_step),
        transfer=TransferDocument(
            base_s=profile.transfer.base_s,
            bandwidth_bytes_per_s=profile.transfer.bandwidth_bytes_per_s,
        ),
        first_token_s=profile.first_token_s,
        step_ratios=profile.step_ratios,
        weight_dtype=profile.weight_dtype,
        kv_dtype=profile.kv_dtype,
        limits=LimitsDocument(
            kv_capacity_tokens=limits.kv_capacity_tokens,
            kv_bytes_per_token=limits.kv_bytes_per_token,
            max_num_seqs=limits.max_num_seqs,
            max_num_batched_tokens=limits.max_num_batched_tokens,
            max_model_len=limits.max_model_len,
            kv_block_tokens=limits.kv_block_tokens,
            async_scheduling=limits.async_scheduling,
            late_kv_notice=limits.late_kv_notice,
        ),
        lifecycle=LifecycleDocument(
            start_cold_s=lifecycle.start_cold_s,
            start_warm_s=lifecycle.start_warm_s,
            flip_s=lifecycle.flip_s,
            drain_s=lifecycle.drain_s,
        ),
        provenance=ProvenanceDocument(
            kind=provenance.kind,
            source=provenance.source,
            measured_at=_aware(provenance.measured_at),
            machine=provenance.machine,
            engine=provenance.engine,
            points=provenance.points,
            error_ratio=provenance.error_ratio,
            notes=provenance.notes,
        ),
        details=None if profile.details is None else DetailsDocument.of(profile.details),
    )


def profile_of(data: Mapping[str, object], *, where: str) -> Profile:
    """The profile that a parsed JSON document describes.

    Parameters
    ----------
    data : mapping
        The parsed document.
    where : str
        File name or place, for messages.

    Raises
    ------
    ProfileError
        Naming the place, the field, what is wrong and what to do; every problem at once.
    """
    try:
        document = ProfileDocument.model_validate(data)
    except ValidationError as error:
        raise ProfileError(_explain(error, where)) from error
    profile = _converted(document, where)
    identified = with_profile_id(profile)
    if document.profile_id not in (None, identified.profile_id):
        raise ProfileError(
            f"{where}: profile_id is {document.profile_id}, but the content is "
            f"{identified.profile_id}: it was changed after it was measured; measure again "
            "(`poolwise profile run`), or delete the line profile_id to accept the change"
        )
    return identified


def read_profile(path: Path) -> Profile:
    """Read one profile file.

    Raises
    ------
    ProfileError
        When it is missing, unreadable, not JSON, of another schema, or not a valid profile.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_BYTES:
            raise ProfileError(f"{path}: {size} bytes is too large for a profile")
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ProfileError(
            f"{path}: no such profile file; make one with `poolwise profile run --out {path}`"
        ) from error
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ProfileError(f"{path}: not a text file: a profile is UTF-8 JSON") from error
    except json.JSONDecodeError as error:
        raise ProfileError(
            f"{path}:{error.lineno}: not JSON: {error.msg} (column {error.colno}); "
            "a profile is the JSON file that `poolwise profile run` writes"
        ) from error
    except RecursionError as error:
        raise ProfileError(f"{path}: nested too deeply for a profile") from error
    except ValueError as error:  # a number of thousands of digits
        raise ProfileError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise ProfileError(f"{path}: a profile is a JSON object, this is a {type(data).__name__}")
    return profile_of(data, where=str(path))


def write_profile(profile: Profile, path: Path) -> None:
    """Write one profile file under the id of its content, all of it or nothing.

    Raises
    ------
    ProfileError
        When the folder cannot be written to.
    """
    text = profile_document(with_profile_id(profile)).model_dump_json(indent=1) + "\n"
    write_whole_files({path: text.encode()})


_WAY_OUT = "measure again with `poolwise profile run`, or mend the file"


def _converted(document: ProfileDocument, where: str) -> Profile:
    """The domain value; conversions refuse what the schema cannot see (order, rectangles)."""
    tables: dict[str, TimeTable] = {}
    problems: list[str] = []
    for field, table in (("prefill", document.prefill), ("decode_step", document.decode_step)):
        try:
            tables[field] = table.table()
        except ValueError as error:
            problems.append(f"{where}: {field}: {error}")
    if problems:
        raise ProfileError("\n".join(problems) + f"\n{_WAY_OUT}")
    try:
        return Profile(
            profile_id=document.profile_id or "",
            model=document.model,
            accelerator=document.accelerator,
            tp=document.tp,
            pp=document.pp,
            dp=document.dp,
            roles=tuple(document.roles),
            prefill=tables["prefill"],
            decode_step=tables["decode_step"],
            transfer=TransferTime(**document.transfer.model_dump()),
            first_token_s=document.first_token_s,
            step_ratios=document.step_ratios,
            weight_dtype=document.weight_dtype,
            kv_dtype=document.kv_dtype,
            limits=EngineLimits(**document.limits.model_dump()),
            lifecycle=LifecycleTimes(**document.lifecycle.model_dump()),
            provenance=Provenance(**document.provenance.model_dump()),
            details=None if document.details is None else document.details.details(),
        )
    except ValueError as error:
        raise ProfileError(f"{where}: {error}\n{_WAY_OUT}") from error


def _explain(error: ValidationError, where: str) -> str:
    """One line per problem, with the field's path."""
    problems = error.errors(include_url=False)
    if any(p["loc"] == ("schema_version",) for p in problems):
        return (
            f"{where}: not a profile of this version: schema_version must be `{SCHEMA}`; "
            "measure again with `poolwise profile run`, or update Poolwise if the file is newer"
        )
    lines = []
    for problem in problems:
        field = ".".join(str(part) for part in problem["loc"])
        lines.append(f"{where}: {field}: {problem['msg']}, got {_short(problem.get('input'))}")
    return "\n".join(lines) + f"\n{_WAY_OUT}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ProfileError("provenance.measured_at needs a time zone")
    return moment
