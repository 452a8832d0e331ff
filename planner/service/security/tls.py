"""TLS of `poolwise serve` and of the commands that talk to it: files, checked before their use."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsNames:
    """By which names people give files."""

    cert: str
    key: str
    authority: str


SERVER = TlsNames(cert="--tls-cert", key="--tls-key", authority="--tls-client-ca")
CLIENT = TlsNames(
    cert="POOLWISE_CLIENT_CERT", key="POOLWISE_CLIENT_KEY", authority="POOLWISE_SERVER_CA"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of one side.

    Parameters
    ----------
    cert : Path
        Its certificate, then those that lead to its authority.
    key : Path
        Its private key, without a passphrase.
    client_ca : Path or None
        Only clients with a certificate of these authorities are let in.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None
    names: TlsNames = SERVER


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The files, and what was made of them."""

    files: TlsFiles
    context: ssl.SSLContext


def tls_files(
    cert: Path | None, key: Path | None, client_ca: Path | None = None, *, names: TlsNames = SERVER
) -> TlsFiles | None:
    """The files that were named; None: plain HTTP, or a client that shows no certificate.

    Raises
    ------
    InputError
        When one is named without the other.
    """
    if cert is not None and key is not None:
        return TlsFiles(cert=cert, key=key, client_ca=client_ca, names=names)
    for given, option, missing in (
        (cert, names.cert, names.key),
        (key, names.key, names.cert),
        (client_ca, names.authority, f"{names.cert} and {names.key}"),
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
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_checked(context, files)
    if files.client_ca is not None:
        _trust(context, files.client_ca, files.names.authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    files: TlsFiles | None, authority: Path | None, *, names: TlsNames = CLIENT
) -> ssl.SSLContext | None:
    """What a client speaks TLS with; None: nothing was named, as clients always do.

    Parameters
    ----------
    files : TlsFiles or None
        What it shows to the server.
    authority : Path or None
        PEM file of those, and only those, who may have signed the server's certificate; None: whom
        the system trusts.

    Raises
    ------
    InputError
        As `tls_context`.
    """
    if files is None and authority is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authority is None:
        context.load_default_certs()
    else:
        _trust(context, authority, names.authority)
    if files is not None:
        _load_checked(context, files)
    return context


def _trust(context: ssl.SSLContext, authority: Path, name: str) -> None:
    _check_readable(authority, name)
    try:
        context.load_verify_locations(cafile=authority)
    except ssl.SSLError as error:
        raise InputError(f"{name} {authority} holds no certificates in PEM form") from error


def _load_checked(context: ssl.SSLContext, files: TlsFiles) -> None:
    _check_readable(files.cert, files.names.cert)
    _check_readable(files.key, files.names.key)
    _check_secret(files.key, files.names.key)
    load_certificate(context, files)


def load_certificate(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Read certificate and key, at first or once they were renewed.

    Raises
    ------
    InputError
        When they are not usable, or do not belong together.
    """

    def passphrase() -> str:
        raise InputError(
            f"{files.names.key} {files.key} has a passphrase: give a key without one (`openssl "
            "pkey -in KEY -out PLAIN`), in a file that only its owner may read"
        )

    try:
        context.load_cert_chain(files.cert, files.key, password=passphrase)
    except ssl.SSLError as error:
        raise InputError(_what_is_wrong(files, error)) from error
    except OSError as error:
        raise InputError(f"{files.cert} or {files.key} cannot be read: {error.strerror}") from error


def _what_is_wrong(files: TlsFiles, error: ssl.SSLError) -> str:
    cert, key = f"{files.names.cert} {files.cert}", f"{files.names.key} {files.key}"
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{key} is not the key of {cert}"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=files.cert)
    except ssl.SSLError:
        return f"{cert} holds no certificate in PEM form"
    return f"{key} holds no private key in PEM form that goes with {files.cert}"


def _check_readable(path: Path, option: str) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError(f"{option} {path} cannot be read: {error.strerror}") from error


def _check_secret(path: Path, name: str) -> None:
    """PostgreSQL's rule: only the owner reads it, or a group too where root owns it."""
    found = path.stat()
    allowed = 0o640 if found.st_uid == 0 else 0o600
    mode = stat.S_IMODE(found.st_mode)
    if mode & ~(allowed | 0o100):
        raise InputError(
            f"{name} {path} may be read or changed by others (mode {mode:04o}): chmod 600 it; a "
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
