"""Styles, scripts and the icon: files of ours, told apart by their content in the address."""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files

STATIC = "planner.service.dashboard"
PALETTE = ("_palette.css", "_tables.css")
"""Of the reports: both look alike."""
STYLE = "style.css"
KINDS = {
    STYLE: "text/css",
    "htmx.min.js": "text/javascript",
    "dashboard.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file as browsers get it."""

    content: bytes
    media_type: str

    @property
    def version(self) -> str:
        """Another one for another content."""
        return sha256(self.content).hexdigest()[:12]


@lru_cache(maxsize=1)
def assets() -> dict[str, Asset]:
    """Every file by name."""
    own = files(STATIC) / "static"
    found = {name: (own / name).read_bytes() for name in KINDS if name != STYLE}
    reports = files("planner.service.reports")
    parts = [(reports / name).read_bytes() for name in PALETTE]
    found[STYLE] = b"\n".join([*parts, (own / "dashboard.css").read_bytes()])
    return {name: Asset(content=content, media_type=KINDS[name]) for name, content in found.items()}


def address(name: str, prefix: str) -> str:
    """Where a browser finds a file; it may keep it for as long as it likes."""
    return f"{prefix}/static/{name}?v={assets()[name].version}"
