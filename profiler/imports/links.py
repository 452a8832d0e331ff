"""KV transfers over another link than a profile's own: a CSV of what was measured elsewhere.

    kv_bytes,seconds            one transfer that had the link for itself: bytes moved, seconds

In this spelling, in any order, nothing beside them. Sizes may repeat; at least two differ.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from planner.domain.errors import ProfileError
from planner.domain.profile import Profile, TransferTime
from planner.domain.topology import Distance
from profiler.files import with_profile_id
from profiler.fitting.profile import KV_LINK, transfer_line
from profiler.imports.reading import file_time
from profiler.imports.rows import read_rows

COLUMNS = ("kv_bytes", "seconds")
WHAT = f"a CSV of KV transfers ({','.join(COLUMNS)}), see docs/profiles.md"
FEWEST_BYTES, MOST_BYTES = 1024.0, 1e13
"""Fewer bytes are no KV cache of a prompt: most likely MiB or tokens."""
SLOWEST_BYTES_PER_S, FASTEST_BYTES_PER_S = 1e6, 1e13
"""A link outside of these is most likely in another unit: a slow network moves 1e7 bytes/s, HBM
8e12."""
LONGEST_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTransfers:
    """What was read.

    Parameters
    ----------
    transfer : TransferTime
        The line through it.
    error_ratio : float
        Median of how far single transfers lie from the line.
    """

    transfer: TransferTime
    points: int
    error_ratio: float
    smallest_bytes: float
    largest_bytes: float


def read_transfers(path: Path) -> LinkTransfers:
    """Fit base + bytes / bandwidth to a file of transfers.

    Raises
    ------
    ProfileError
        With the line: when a row is no transfer, or there are too few sizes for a line.
    """
    rows = list(read_rows(path, COLUMNS, what=WHAT, exactly=True))
    moved, took = [], []
    for row in rows:
        kv_bytes = row.fields.number("kv_bytes", least=0, most=MOST_BYTES)
        seconds = row.fields.number("seconds", least=0, most=LONGEST_S)
        if kv_bytes < FEWEST_BYTES:
            raise row.fields.error(
                "kv_bytes", f"{kv_bytes:g} bytes are no KV cache of a prompt: is it in MiB?"
            )
        if seconds == 0:
            raise row.fields.error("seconds", "0 s is no measurement: leave this row out")
        rate = kv_bytes / seconds
        if kv_bytes >= 1e6 and not SLOWEST_BYTES_PER_S <= rate <= FASTEST_BYTES_PER_S:
            raise row.fields.error(
                "seconds",
                f"{seconds:g} s for {kv_bytes:g} bytes are {rate:.3g} bytes/s: is it in seconds, "
                "and kv_bytes in bytes?",
            )
        moved.append(kv_bytes)
        took.append(seconds)
    sizes, times = np.array(moved), np.array(took)
    if np.ptp(sizes) == 0:
        raise ProfileError(
            f"{path}: all transfers moved {sizes[0]:g} bytes: at least two sizes tell the fixed "
            "part from the bandwidth"
        )
    transfer = transfer_line(sizes, times)
    off = np.abs(transfer.seconds(sizes) / times - 1)
    return LinkTransfers(
        transfer=transfer,
        points=len(rows),
        error_ratio=float(np.median(off)),
        smallest_bytes=float(sizes.min()),
        largest_bytes=float(sizes.max()),
    )


def over_link(profile: Profile, path: Path, link: Distance, source: str) -> Profile:
    """The profile as if its KV caches moved over another link, which it names.

    Parameters
    ----------
    path : Path
        Of the transfers.
    source : str
        Who measured them on what.

    Raises
    ------
    ProfileError
    """
    if not source.strip():
        raise ProfileError("--source: say who measured these transfers on what")
    found = read_transfers(path)
    label = f"{link}, imported from {path.name}: {source.strip()}"
    note = (
        f"KV transfers are those of another link than the rest was measured with: {label} "
        f"({found.points} transfers of {found.smallest_bytes:.3g} to {found.largest_bytes:.3g} "
        f"bytes, the file of {file_time(path):%Y-%m-%d}, off by {found.error_ratio:.1%} in the "
        "median); how much slower they are under load is not known"
    )
    details = profile.details
    if details is not None:
        others = tuple(f for f in details.facts if f[0] != KV_LINK)
        details = replace(details, loaded_transfer_ratio=None, facts=(*others, (KV_LINK, label)))
    provenance = replace(profile.provenance, notes=(*profile.provenance.notes, note))
    return with_profile_id(
        replace(profile, transfer=found.transfer, details=details, provenance=provenance)
    )
