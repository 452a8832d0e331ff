"""API keys: shown once, kept as hashes in a file, each with its class, priority and rate limits."""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from planner.domain.errors import KeyFileError
from planner.domain.slo import DEFAULT_CLASS

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """Who a key belongs to and what it may do.

    Parameters
    ----------
    name : str
        Unique in its file.
    key_hash : str
        SHA-256 of the key, hexadecimal. A plain hash is enough: keys are 256 random bits.
    request_class : str
        Whose promise (SLO) its requests have.
    priority : int
        Higher ones are shed last.
    requests_per_s, tokens_per_s : float or None
        Limits; tokens of prompt and answer together. None: no limit.
    """

    name: str
    key_hash: str
    request_class: str = DEFAULT_CLASS
    priority: int = 0
    requests_per_s: float | None = None
    tokens_per_s: float | None = None
    created_at: str = ""

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > 100:
            raise ValueError(f"name must have 1 to 100 characters, got {len(self.name)}")
        for name in ("requests_per_s", "tokens_per_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be above 0, got {value:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """All keys of one file."""

    keys: tuple[ApiKey, ...] = ()
    _by_hash: Mapping[str, ApiKey] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_hash", {key.key_hash: key for key in self.keys})

    def find(self, secret: str) -> ApiKey | None:
        """The key that a client presents, or None."""
        return self._by_hash.get(hash_of(secret))

    @property
    def priorities(self) -> tuple[int, ...]:
        """Priorities in use, highest first."""
        return tuple(sorted({key.priority for key in self.keys}, reverse=True))


def hash_of(secret: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def read_keys(path: Path) -> Keys:
    """The keys in a file; none where there is no file yet.

    Raises
    ------
    KeyFileError
        When it is not a file of keys.
    """
    try:
        raw = cast("object", json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Keys()
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{path} cannot be read as a file of API keys: {error}") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise KeyFileError(
            f'{path} is no file of API keys of this version (it needs "format": {FORMAT}): make '
            "one with `poolwise gate key add`"
        )
    try:
        return Keys(keys=tuple(_key_of(entry) for entry in raw["keys"]))
    except (KeyError, TypeError, ValueError) as error:
        raise KeyFileError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _key_of(entry: object) -> ApiKey:
    if not isinstance(entry, dict):
        raise TypeError("a key must be an object")
    known = {f.name: f.type for f in fields(ApiKey)}
    if unknown := sorted(set(entry) - set(known)):
        raise ValueError(f"unknown field {unknown[0]!r}")
    for name in ("name", "key_hash", "request_class", "created_at"):
        if not isinstance(entry.get(name, ""), str):
            raise TypeError(f"{name} must be text")
    if not isinstance(entry.get("priority", 0), int):
        raise TypeError("priority must be a whole number")
    return ApiKey(**cast("dict[str, str]", dict(entry)))  # type: ignore[arg-type]


def add_key(path: Path, key: ApiKey) -> tuple[ApiKey, str]:
    """Make a key and write it to the file; the key as stored, and the secret to be shown once.

    Raises
    ------
    KeyFileError
        When the name is taken, or the file cannot be read or written.
    """
    keys = read_keys(path)
    if any(known.name == key.name for known in keys.keys):
        raise KeyFileError(
            f"{path} has a key named {key.name}: revoke it (`poolwise gate key revoke`), or "
            "choose another name"
        )
    secret = "pwk_" + secrets.token_urlsafe(32)
    made = replace(
        key,
        key_hash=hash_of(secret),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    _write(path, (*keys.keys, made))
    return made, secret


def revoke_key(path: Path, name: str) -> None:
    """Take a key out of the file; a running gate refuses it within seconds.

    Raises
    ------
    KeyFileError
        When there is none of this name.
    """
    keys = read_keys(path)
    left = tuple(key for key in keys.keys if key.name != name)
    if len(left) == len(keys.keys):
        names = ", ".join(key.name for key in keys.keys) or "none"
        raise KeyFileError(f"{path} has no key named {name} (it has: {names})")
    _write(path, left)


def _write(path: Path, keys: Sequence[ApiKey]) -> None:
    """Replace the file as a whole; nobody else may read it."""
    draft = path.with_name(path.name + ".part")
    text = json.dumps({"format": FORMAT, "keys": [asdict(key) for key in keys]}, indent=2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        draft.replace(path)
    except OSError as error:
        raise KeyFileError(f"{path} cannot be written: {error.strerror}") from error
