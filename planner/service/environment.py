"""Environment variables as numbers: one way to read them, one sentence when they are none."""

from collections.abc import Mapping

from planner.domain.errors import InputError


def text_of(environ: Mapping[str, str], name: str) -> str:
    """A variable without blanks around it; empty: not set."""
    return environ.get(name, "").strip()


def whole_number(environ: Mapping[str, str], name: str, default: int, *, most: int) -> int:
    """A count from 0 on. Raises InputError."""
    text = text_of(environ, name)
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or int(text) > most:
        raise InputError(f"{name} must be a whole number from 0 to {most}, got {text!r}")
    return int(text)


def number(
    environ: Mapping[str, str], name: str, default: float, *, most: float, above_zero: bool = False
) -> float:
    """A number from 0 on, or above 0. Raises InputError."""
    text = text_of(environ, name)
    if not text:
        return default
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= most or (above_zero and found == 0):
        bounds = f"above 0 and up to {most:g}" if above_zero else f"from 0 to {most:g}"
        raise InputError(f"{name} must be a number {bounds}, got {text!r}")
    return found
