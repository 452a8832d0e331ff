"""Where the demo runs: the engine's interpreter and a model made on this machine."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import psutil

import serving.cpu_engine
from planner.domain.errors import EngineError, InputError
from planner.service.settings import Settings
from serving.workers.engine import EngineFlags, EngineInstall, ModelFiles
from serving.workers.launcher import LocalSite

CORES_PER_REPLICA = 0.5
MAX_MODEL_LEN = 4096
SOURCES = Path(serving.cpu_engine.__file__).parent


class DemoModel(StrEnum):
    """Models that the project can make without a download."""

    TINY = "tiny"
    SMOLLM2 = "smollm2"


_MAKERS = {
    DemoModel.TINY: ("tiny_model.py", ("tiny_model.py", "corpus.txt")),
    DemoModel.SMOLLM2: ("smollm2.py", ("smollm2.py",)),
}


def demo_model(name: str) -> DemoModel:
    """Look a model up by name.

    Raises
    ------
    InputError
        When the project cannot make it.
    """
    try:
        return DemoModel(name)
    except ValueError:
        known = ", ".join(m.value for m in DemoModel)
        raise InputError(f"model `{name}` is not known here: use one of {known}") from None


def find_engine(settings: Settings) -> EngineInstall:
    """Find the interpreter that has vLLM: the setting, or `.engine` of the current folder.

    Raises
    ------
    EngineError
        When there is none, with how to get one.
    """
    # Not resolved: the link's own place is what makes it the environment's interpreter.
    candidates = [Path(".engine/bin/python").absolute()]
    own = settings.storage.state_dir / "engine"
    candidates.append(own / "bin" / "python")
    if settings.engine.python is not None:
        candidates = [settings.engine.python.absolute()]
    for python in candidates:
        if os.access(python, os.X_OK):
            return EngineInstall(python=python)
    looked = ", ".join(str(c) for c in candidates)
    raise EngineError(
        f"no engine found (looked at {looked}): run `make engine`, or "
        f"`python -m serving.cpu_engine.install {own}` (4 GB, about two minutes), or set "
        "POOLWISE_ENGINE_PYTHON to the interpreter of an environment with vLLM"
    )


def prepare_model(
    engine: EngineInstall, model: DemoModel, cache: Path, *, progress: Callable[[str], None]
) -> ModelFiles:
    """Make the model, or take the one made before from the same sources.

    Raises
    ------
    EngineError
        When making it fails, with the last lines that it printed.
    """
    script, sources = _MAKERS[model]
    digest = hashlib.sha256()
    for name in sources:
        digest.update((SOURCES / name).read_bytes())
    directory = cache / f"{model}-{digest.hexdigest()[:12]}"
    if (directory / "words.json").is_file():
        return ModelFiles(name=model.value, directory=directory)
    progress(f"making the model {model} (once)")
    partial = cache / f".{directory.name}.{os.getpid()}"
    remove_left_over(cache, f".{model}-*")
    partial.mkdir(parents=True)
    try:
        _run_in_engine(engine, SOURCES / script, partial)
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ModelFiles(name=model.value, directory=directory)


def find_model(
    model: str,
    settings: Settings,
    *,
    name: str | None = None,
    progress: Callable[[str], None],
) -> tuple[EngineInstall, ModelFiles]:
    """Find the engine, and a model on disk or one of those that the project can make.

    Parameters
    ----------
    model : str
        A folder with a `config.json`, or the name of a DemoModel.
    name : str or None
        The name that a folder is served under; None: the folder's own.

    Raises
    ------
    InputError
        When it is neither.
    EngineError
        When there is no engine, or making the model fails.
    """
    directory = Path(model)
    is_folder = (directory / "config.json").is_file()
    known = [m.value for m in DemoModel]
    if not is_folder and model not in known:
        raise InputError(
            f"--model {model}: neither a folder with a config.json nor one of {', '.join(known)}; "
            "a server that runs already is given by its address where a command has --url"
        )
    engine = find_engine(settings)
    if is_folder:
        resolved = directory.resolve()
        return engine, ModelFiles(name=name or resolved.name, directory=resolved)
    cache = settings.storage.state_dir / "models"
    return engine, prepare_model(engine, DemoModel(model), cache, progress=progress)


def remove_left_over(folder: Path, pattern: str) -> None:
    """Remove unfinished folders, named `….PID`, whose process is gone."""
    for path in folder.glob(pattern):
        pid = path.name.rpartition(".")[2]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _run_in_engine(engine: EngineInstall, script: Path, directory: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [str(engine.python), str(script), str(directory)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        lines = tuple((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise EngineError(f"making a model with {script.name} failed", log_tail=lines)


def local_site(
    settings: Settings,
    model: DemoModel,
    *,
    cores: float = CORES_PER_REPLICA,
    progress: Callable[[str], None],
) -> LocalSite:
    """Put engine, model and flags together."""
    engine = find_engine(settings)
    state_dir = settings.storage.state_dir
    files = prepare_model(engine, model, state_dir / "models", progress=progress)
    return LocalSite(
        engine=engine,
        model=files,
        flags=EngineFlags(max_model_len=MAX_MODEL_LEN, max_num_batched_tokens=MAX_MODEL_LEN),
        state_dir=state_dir / "local",
        endpoints_dir=state_dir,
        cores_per_replica=cores,
    )
