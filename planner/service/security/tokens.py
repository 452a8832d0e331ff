"""Bearer tokens: shown once, kept as hashes."""

import hashlib
import secrets


def new_token() -> str:
    """A token with 256 bits of randomness."""
    return "pw_" + secrets.token_urlsafe(32)


def hash_of(token: str) -> str:
    """What is stored of a token.

    A plain hash is enough: nobody can search through 256 random bits.
    """
    return hashlib.sha256(token.encode()).hexdigest()
