"""Build the wheel, install it into a fresh environment, and look at what arrived.

Run by `make package`, outside pytest: it builds a virtual environment (about a minute).
"""

import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.packaging import supply_chain

PACKAGES = {"planner", "forecaster", "profiler", "actuators", "serving"}
ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "vllm")


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        print("[package] building sdist and wheel")
        run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
        wheel = next(folder.glob("*.whl"))
        check_contents(wheel)
        print("[package] installing the wheel into a fresh environment")
        run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
        python = folder / "venv" / "bin" / "python"
        lock = ROOT / "requirements" / "lock.txt"
        run(python, "-m", "pip", "install", "-q", "-c", lock, wheel, cwd=folder)
        check_installed(folder, python)
        supply_chain.check(python, ROOT)
    print("[package] ok")


def check_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {n.split("/")[0] for n in names} - {
        n for n in {m.split("/")[0] for m in names} if n.endswith(".dist-info")
    }
    if top != PACKAGES:
        sys.exit(f"the wheel holds {sorted(top)}, expected {sorted(PACKAGES)}")
    for data in (
        "serving/cpu_engine/corpus.txt",
        "serving/cpu_engine/requirements.txt",
        "planner/service/spec/accelerators.yaml",
        "planner/service/dashboard/static/htmx.min.js",
        "planner/service/dashboard/static/htmx.LICENSE.txt",
        "planner/service/dashboard/templates/base.html.j2",
        "planner/service/reports/_palette.css",
    ):
        if data not in names:
            sys.exit(f"the wheel lacks {data}")


def check_installed(folder: Path, python: Path) -> None:
    helped = run(folder / "venv" / "bin" / "poolwise", "--help", cwd=folder)
    for command in ("demo", "plan", "simulate", "forecast", "recommend", "serve", "validate"):
        if command not in helped:
            sys.exit(f"`poolwise --help` does not name {command}:\n{helped}")
    for package in PACKAGES:
        where = run(python, "-c", f"import {package}; print({package}.__file__)", cwd=folder)
        if str(folder) not in where:
            sys.exit(f"{package} comes from {where}, not from the wheel")
    for package in HEAVY:
        code = f"import importlib.util as u, sys; sys.exit(u.find_spec('{package}') is not None)"
        if subprocess.run([python, "-c", code], cwd=folder, check=False).returncode:
            sys.exit(f"the core package brought {package} along")


if __name__ == "__main__":
    main()
