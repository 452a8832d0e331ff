"""TLS of `poolwise serve`: certificate and key from files, checked before anything starts."""

import logging
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from planner.domain.errors import InputError

LOG = logging.getLogger("poolwise.serve")
LOOK_S = 60.0
"""How often the files are looked at, seconds."""
CERT, KEY, CLIENT_CA = "--tls-cert", "--tls-key", "--tls-client-ca"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files.

    Parameters
    ----------
    cert : Path
        The server's certificate, then those that lead to its authority.
    key : Path
        Its private key, without a passphrase.
    client_ca : Path or None
        Only clients with a certificate of these authorities are let in.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The files, and what was made of them."""

    files: TlsFiles
    context: ssl.SSLContext


def tls_files(cert: Path | None, key: Path | None, client_ca: Path | None) -> TlsFiles | None:
    """The files that were named; None: plain HTTP.

    Raises
    ------
    InputError
        When one is named without the other.
    """
    if cert is not None and key is not None:
        return TlsFiles(cert=cert, key=key, client_ca=client_ca)
    for given, option, missing in (
        (cert, CERT, KEY),
        (key, KEY, CERT),
        (client_ca, CLIENT_CA, f"{CERT} and {KEY}"),
    ):
        if given is not None:
            raise InputError(f"{option} goes with {missing}: give them together")
    return None


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """What a server speaks TLS with: 1.2 or newer.

    Raises
    ------
    InputError
        When a file is missing or is not what it should be, or others may read the key.
    """
    _check_readable(files.cert, CERT)
    _check_readable(files.key, KEY)
    _check_secret(files.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(context, files)
    if files.client_ca is not None:
        _check_readable(files.client_ca, CLIENT_CA)
        try:
            context.load_verify_locations(cafile=files.client_ca)
        except ssl.SSLError as error:
            raise InputError(
                f"{CLIENT_CA} {files.client_ca} holds no certificates in PEM form"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def load_certificate(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Read certificate and key, at first or once they were renewed.

    Raises
    ------
    InputError
        When they are not usable, or do not belong together.
    """

    def passphrase() -> str:
        raise InputError(
            f"{KEY} {files.key} has a passphrase: give a key without one (`openssl pkey -in KEY "
            "-out PLAIN`), in a file that only its owner may read"
        )

    try:
        context.load_cert_chain(files.cert, files.key, password=passphrase)
    except ssl.SSLError as error:
        raise InputError(_what_is_wrong(files, error)) from error
    except OSError as error:
        raise InputError(f"{files.cert} or {files.key} cannot be read: {error.strerror}") from error


def _what_is_wrong(files: TlsFiles, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{KEY} {files.key} is not the key of {CERT} {files.cert}"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=files.cert)
    except ssl.SSLError:
        return f"{CERT} {files.cert} holds no certificate in PEM form"
    return f"{KEY} {files.key} holds no private key in PEM form that goes with {files.cert}"


def _check_readable(path: Path, option: str) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError(f"{option} {path} cannot be read: {error.strerror}") from error


def _check_secret(path: Path) -> None:
    """PostgreSQL's rule: only the owner reads it, or a group too where root owns it."""
    found = path.stat()
    allowed = 0o640 if found.st_uid == 0 else 0o600
    mode = stat.S_IMODE(found.st_mode)
    if mode & ~(allowed | 0o100):
        raise InputError(
            f"{KEY} {path} may be read or changed by others (mode {mode:04o}): chmod 600 it; a "
            "file of root that a group reads has 640"
        )


@contextmanager
def renewing(tls: Tls | None, *, look_s: float = LOOK_S) -> Iterator[None]:
    """Read certificate and key again when they were written anew; connections that stand go on."""
    if tls is None:
        yield
        return
    stopped = threading.Event()
    seen = _versions(tls.files)

    def run() -> None:
        nonlocal seen
        while not stopped.wait(look_s):
            now = _versions(tls.files)
            if now == seen:
                continue
            try:
                load_certificate(tls.context, tls.files)
            except InputError as error:
                LOG.warning("the new certificate is not used: %s", error)
            else:
                LOG.info("the new certificate %s is used from now on", tls.files.cert)
            seen = now

    thread = threading.Thread(target=run, name="tls", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _versions(files: TlsFiles) -> tuple[int, ...]:
    """Changes when a file does; while one is being replaced it may be away."""
    versions = []
    for path in (files.cert, files.key):
        try:
            versions.append(path.stat().st_mtime_ns)
        except OSError:
            versions.append(0)
    return tuple(versions)
