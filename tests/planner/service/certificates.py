"""Certificates for tests, made by openssl."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

LONG = "3650"


@dataclass(frozen=True)
class Certificate:
    cert: Path
    key: Path


def _openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def authority(folder, name="authority"):
    """One that signs others."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    _openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-keyout", key, "-out", cert, "-days", LONG, "-subj", f"/CN={name}"),
        *("-addext", "keyUsage=critical,keyCertSign"),
    )
    return Certificate(cert, key)


def signed(folder, by, name):
    """One for localhost, signed by an authority."""
    cert, key, request = folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}.csr"
    more = folder / f"{name}.ext"
    more.write_text(
        "subjectAltName=DNS:localhost,IP:127.0.0.1\n"
        "authorityKeyIdentifier=keyid\n"
        "extendedKeyUsage=serverAuth,clientAuth\n"
    )
    _openssl(
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-keyout", key, "-out", request, "-subj", f"/CN={name}"),
    )
    _openssl(
        *("x509", "-req", "-in", request, "-CA", by.cert, "-CAkey", by.key, "-out", cert),
        *("-days", LONG, "-extfile", more),
    )
    key.chmod(0o600)
    return Certificate(cert, key)


def with_passphrase(folder, key):
    """The same key, kept under a passphrase."""
    locked = folder / "locked.key"
    _openssl("pkey", "-in", key, "-out", locked, "-aes128", "-passout", "pass:hush")
    locked.chmod(0o600)
    return locked
