"""What the site shows besides the pages of `docs/`.

The README as its first page, and the reference, made from the code at every build so that it cannot
fall behind.
"""

import importlib.util
from pathlib import Path
from types import ModuleType

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file of `docs/` holds."""
    pages = {"index.md": _first_page(), "changes.md": _changes(), **_reference().pages()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def _first_page() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.replace("](docs/", "](").replace("](CHANGELOG.md)", "](changes.md)")


def _changes() -> str:
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](")


def _reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "reference", Path(__file__).parent / "reference.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
