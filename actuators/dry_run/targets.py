"""Which object holds the count of which pool, as a file says it."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from actuators.kinds import KINDS
from planner.domain.errors import InputError
from planner.domain.fleet import Role
from planner.domain.target import CountTarget

__all__ = ["CountTarget", "read_targets"]
_KEYS = frozenset(
    {"role", "model", "accelerator", "tp", "kind", "api_version", "namespace", "name", "part"}
)


def read_targets(path: Path) -> tuple[CountTarget, ...]:
    """Targets in a YAML file: `targets:` with one entry a pool.

    Raises
    ------
    InputError
        When the file cannot be read, or an entry is not usable; says which.
    """
    try:
        document: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        raise InputError(f"cannot read the targets in {path}: {reason}") from error
    entries = document.get("targets") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path} has no targets: give `targets:` with one entry a pool")
    return tuple(_target(entry, f"{path}: targets[{i}]") for i, entry in enumerate(entries))


def _target(entry: object, where: str) -> CountTarget:
    if not isinstance(entry, dict):
        raise InputError(f"{where} is no mapping with role, kind and name")
    unknown = sorted(str(key) for key in entry if key not in _KEYS)
    if unknown:
        raise InputError(f"{where} has unknown keys {', '.join(unknown)}; known: {sorted(_KEYS)}")
    kind = _text(entry, "kind", where) or ""
    if kind not in KINDS:
        raise InputError(f"{where}: kind {kind!r} is not known; give one of {', '.join(KINDS)}")
    role, name = _text(entry, "role", where), _text(entry, "name", where)
    part = _text(entry, "part", where) or ""
    if role not in set(Role):
        raise InputError(f"{where}: role {role!r} is not known; give one of {', '.join(Role)}")
    if not name:
        raise InputError(f"{where} has no name: give the object's name")
    if KINDS[kind].has_parts != bool(part):
        needs = "needs a part (its role or component)" if not part else "has no parts"
        raise InputError(f"{where}: kind {kind} {needs}")
    if kind == "LLMInferenceService" and part not in ("prefill", "decode"):
        raise InputError(f"{where}: part of an LLMInferenceService is prefill or decode")
    tp = entry.get("tp")
    if tp is not None and (isinstance(tp, bool) or not isinstance(tp, int) or tp < 1):
        raise InputError(f"{where}: tp must be a whole number from 1, got {tp!r}")
    return CountTarget(
        role=Role(role),
        model=_text(entry, "model", where),
        accelerator=_text(entry, "accelerator", where),
        tp=tp,
        kind=kind,
        api_version=_text(entry, "api_version", where) or KINDS[kind].api_version,
        namespace=_text(entry, "namespace", where),
        name=name,
        part=part,
    )


def _text(entry: Mapping[object, object], key: str, where: str) -> str | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where}: {key} must be text, got {value!r}")
    return value
