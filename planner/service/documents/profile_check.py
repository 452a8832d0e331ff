"""A check of a profile against live engines as JSON, and its history: one such line per check."""

import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from planner.domain.errors import HistoryError
from planner.service.documents.document import Document, Instant, parse
from profiler.live.drift import Check, Drift, Load, Verdict

LARGEST_BYTES = 64 * 1024 * 1024
WAY_OUT = "mend or remove the line, or name another --history file"


class DriftDocument(Document):
    """Observed to predicted of one quantity."""

    quantity: str
    verdict: Verdict
    observed_s: float | None
    predicted_s: float | None
    ratio: float | None
    low: float | None
    high: float | None
    samples: int
    reason: str


class LoadDocument(Document):
    """The load that was seen."""

    seconds: float
    requests: int
    batch: float
    context_tokens: float
    isl: float
    osl: float
    computed_ratio: float
    prefill_share: float


class CheckDocument(Document):
    """What `poolwise profile check` says; `drifted_since` needs a history."""

    checked_at: Instant
    profile_id: str
    urls: tuple[str, ...]
    verdict: Verdict
    tolerance_ratio: float
    drifted_since: Instant | None
    load: LoadDocument | None
    drifts: tuple[DriftDocument, ...]
    notes: tuple[str, ...]


def check_document(
    found: Check,
    *,
    checked_at: datetime,
    profile_id: str,
    urls: Sequence[str],
    history: Sequence[CheckDocument],
) -> CheckDocument:
    """The document of a check made after those of a history."""
    since = None
    if found.verdict is Verdict.DRIFTED:
        since = drifted_since(history, profile_id=profile_id, urls=urls) or checked_at
    return CheckDocument(
        checked_at=checked_at,
        profile_id=profile_id,
        urls=tuple(urls),
        verdict=found.verdict,
        tolerance_ratio=found.tolerance_ratio,
        drifted_since=since,
        load=None if found.load is None else _load(found.load),
        drifts=tuple(_drift(drift) for drift in found.drifts),
        notes=found.notes,
    )


def drifted_since(
    history: Sequence[CheckDocument], *, profile_id: str, urls: Sequence[str]
) -> datetime | None:
    """The first of the unbroken row of drifted checks of this profile and these engines at its end.

    Checks that saw too little traffic say nothing either way.
    """
    since = None
    same = [c for c in history if c.profile_id == profile_id and set(c.urls) == set(urls)]
    for one in sorted(same, key=lambda c: c.checked_at, reverse=True):
        if one.verdict is Verdict.OK:
            break
        if one.verdict is Verdict.DRIFTED:
            since = one.checked_at
    return since


def read_check_history(path: Path) -> tuple[CheckDocument, ...]:
    """Earlier checks of a JSON lines file; none when it does not exist yet.

    Raises
    ------
    HistoryError
        With file and line, when it is not such a file.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise HistoryError(f"{path}: too large for a history of checks; {WAY_OUT}")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise HistoryError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise HistoryError(f"{path}: not a text file; {WAY_OUT}") from error
    return tuple(
        _line(line, where=f"{path}:{number}")
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    )


def append_check(path: Path, document: CheckDocument) -> None:
    """Add a line in one write, so that no reader and no other writer sees half of it.

    Raises
    ------
    HistoryError
        When it cannot be written.
    """
    line = f"{document.model_dump_json()}\n".encode()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            before = os.fstat(descriptor).st_size
            if os.write(descriptor, line) != len(line):  # a full disk
                os.ftruncate(descriptor, before)
                raise HistoryError(f"{path}: cannot be written: no space left")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise HistoryError(f"{path}: cannot be written: {error.strerror}") from error


def _line(line: str, *, where: str) -> CheckDocument:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise HistoryError(f"{where}: not JSON; {WAY_OUT}") from error
    if not isinstance(data, dict):
        raise HistoryError(f"{where}: a check is a JSON object; {WAY_OUT}")
    return parse(CheckDocument, data, where=where)


def _load(load: Load) -> LoadDocument:
    return LoadDocument.model_validate(load)


def _drift(drift: Drift) -> DriftDocument:
    return DriftDocument.model_validate(drift)
