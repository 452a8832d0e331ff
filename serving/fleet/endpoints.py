"""Where the parts of a running local deployment answer: one file in its state directory.

Whoever runs the deployment writes it whole at every change; commands that only look (status,
diagnose, the gate) read it, so that nobody has to type addresses.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from planner.domain.errors import EngineError
from planner.domain.fleet import Role

FILE_NAME = "endpoints.json"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEndpoint:
    """One worker.

    Parameters
    ----------
    url : str
        Its OpenAI-compatible API and `/metrics`.
    kv_events : str or None
        Where a view gets its KV events (see `serving.kv.events.EventAddress`); None: it sends none.
    draining : bool
        It ends what it has begun; nobody may send it anything new.
    """

    name: str
    role: Role
    cell: str
    url: str
    kv_events: str | None = None
    draining: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterEndpoint:
    """The router of one topology cell: its API and its metrics page."""

    cell: str
    url: str
    metrics_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """All parts of one deployment.

    Parameters
    ----------
    pid : int
        Process that runs it.
    model : str
        Served model name.
    gate : str or None
        Base URL of the gate, where one runs.
    """

    pid: int
    model: str
    routers: tuple[RouterEndpoint, ...] = ()
    workers: tuple[WorkerEndpoint, ...] = ()
    gate: str | None = None

    def of_role(self, role: Role) -> tuple[WorkerEndpoint, ...]:
        """Workers of a role."""
        return tuple(w for w in self.workers if w.role is role)


def write_endpoints(state_dir: Path, endpoints: Endpoints) -> None:
    """Replace the file as a whole."""
    path = state_dir / FILE_NAME
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps({"format": FORMAT, **asdict(endpoints)}, indent=2) + "\n")
    draft.replace(path)


@dataclass(slots=True)
class EndpointsFile:
    """The endpoints file of one deployment, as its manager writes it.

    Parameters
    ----------
    behind : bool
        The last state could not be written, and those who read the file do not know it.
    """

    state_dir: Path
    progress: Callable[[str], None] = lambda _line: None
    behind: bool = False

    def write(self, endpoints: Endpoints) -> None:
        """Replace the file; a disk that does not take it is told, and holds up nothing else."""
        try:
            write_endpoints(self.state_dir, endpoints)
        except OSError as error:
            if not self.behind:
                self.progress(
                    f"{self.state_dir / FILE_NAME} cannot be written ({error.strerror}): gates and "
                    "`status` do not learn of changes until it can; make room there"
                )
            self.behind = True
        else:
            self.behind = False


def written_at_ns(state_dir: Path) -> int | None:
    """When the file was replaced last, nanoseconds; None where there is none."""
    try:
        # Asked for every direct request: joining and looking up a Path takes three times as long.
        return os.stat(f"{state_dir}/{FILE_NAME}").st_mtime_ns  # noqa: PTH116
    except OSError:
        return None


def forget_endpoints(state_dir: Path) -> None:
    """Take the file away: the deployment has ended."""
    (state_dir / FILE_NAME).unlink(missing_ok=True)


def read_endpoints(state_dir: Path) -> Endpoints:
    """Read where a running deployment answers.

    Raises
    ------
    EngineError
        When none runs from this directory, or the file is not one of ours.
    """
    path = state_dir / FILE_NAME
    try:
        raw = cast("dict[str, object]", json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise EngineError(
            f"no deployment runs from {state_dir} (it has no {FILE_NAME}): start one, or name the "
            "state directory by POOLWISE_STATE_DIR"
        ) from error
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise EngineError(f"{path} is damaged: it holds no object")
    if raw.get("format") != FORMAT:
        raise EngineError(
            f"{path} has format {raw.get('format')!r}, this version reads {FORMAT}: it was written "
            "by another version of Poolwise"
        )
    try:
        routers = cast("list[dict[str, str]]", raw["routers"])
        workers = cast("list[dict[str, str]]", raw["workers"])
        return Endpoints(
            pid=cast("int", raw["pid"]),
            model=cast("str", raw["model"]),
            routers=tuple(RouterEndpoint(**r) for r in routers),
            workers=tuple(
                WorkerEndpoint(
                    name=w["name"],
                    role=Role(w["role"]),
                    cell=w["cell"],
                    url=w["url"],
                    kv_events=w["kv_events"],
                    draining=bool(w.get("draining")),
                )
                for w in workers
            ),
            gate=cast("str | None", raw["gate"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(f"{path} is damaged: {type(error).__name__}: {error}") from error
