"""Talking to a Poolwise server: the one way in which commands do.

What the server refuses comes out as the error that the same refusal has here, in its own words.
"""

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

import httpx
from pydantic import JsonValue

from planner.domain.errors import InputError, ServerError
from planner.service.security.tls import CLIENT, client_context, tls_files
from planner.service.settings import ClientSettings

CONNECT_S = 5.0
ANSWER_S = 60.0
_BAD_INPUT = (HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.BAD_REQUEST)
_HOW_TO_WRITE = (
    "set POOLWISE_TOKEN, or name a file that holds the token by POOLWISE_TOKEN_FILE or --token-file"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where a server is, and what lets one write there.

    Parameters
    ----------
    url : str
    token : str or None
        None: only what needs no token.
    tls : ssl.SSLContext or None
        What is trusted and shown over https; None: whom the system trusts, and nothing.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None


def server_of(
    settings: ClientSettings, *, url: str | None = None, token_file: Path | None = None
) -> Server:
    """The server that is meant; what is given goes before what the settings say.

    Raises
    ------
    InputError
        When the address is none, or a file cannot be used.
    """
    address = url or settings.server
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise InputError(f"--server: {address!r} is no address; write it as http://localhost:8765")
    file = token_file or (None if settings.token else settings.token_file)
    token = settings.token if file is None else _token_in(file)
    shown = tls_files(settings.cert, settings.key, names=CLIENT)
    tls = client_context(shown, settings.server_ca)
    return Server(url=address.rstrip("/"), token=token, tls=tls)


def _token_in(file: Path) -> str:
    try:
        token = file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(f"the token's file {file} cannot be read: {reason}") from error
    if not token or any(c.isspace() or not c.isprintable() for c in token):
        raise InputError(f"the token's file {file} holds no token: one word is expected")
    return token


class Client:
    """Requests to one server; a context manager.

    Parameters
    ----------
    transport : httpx.BaseTransport or None
        Instead of the network.
    """

    def __init__(self, server: Server, *, transport: httpx.BaseTransport | None = None) -> None:
        self._server = server
        headers = {"User-Agent": "poolwise-cli"}
        if server.token:
            headers["Authorization"] = f"Bearer {server.token}"
        self._http = httpx.Client(
            base_url=server.url,
            headers=headers,
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            verify=True if server.tls is None else server.tls,
            transport=transport,
        )

    def __enter__(self) -> Self:
        """Open."""
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _where: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, *path: str, **query: str | int | list[str]) -> Mapping[str, JsonValue]:
        """What the server has under a path."""
        return self._ask("GET", path, params=query)

    def send(
        self,
        method: str,
        *path: str,
        body: Mapping[str, JsonValue] | None = None,
        patience_s: float = ANSWER_S,
    ) -> Mapping[str, JsonValue]:
        """A write, and the server's answer.

        Parameters
        ----------
        patience_s : float
            How long the answer may take, seconds.
        """
        return self._ask(method, path, body=body, patience_s=patience_s)

    def deployment(self, name: str | None) -> str:
        """The deployment that is meant: the named one, or the only one that the server has.

        Raises
        ------
        InputError
            When it has several and none was named.
        """
        if name is not None:
            return name
        listed = self.get("v1", "deployments").get("deployments")
        served = listed if isinstance(listed, list) else []
        names = [str(one["name"]) for one in served if isinstance(one, dict) and "name" in one]
        if len(names) != 1:
            raise InputError(
                f"the server plans {len(names)} deployments ({', '.join(names)}): name one by "
                "--deployment"
            )
        return names[0]

    def _ask(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        params: Mapping[str, str | int | list[str]] | None = None,
        body: Mapping[str, JsonValue] | None = None,
        patience_s: float = ANSWER_S,
    ) -> Mapping[str, JsonValue]:
        where = "/" + "/".join(quote(part, safe="") for part in path)
        try:
            answer = self._http.request(
                method,
                where,
                params=dict(params or {}),
                json=None if body is None else dict(body),
                timeout=httpx.Timeout(patience_s, connect=CONNECT_S),
            )
        except httpx.TimeoutException as error:
            raise ServerError(self._silent(error, patience_s)) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerError(
                f"no Poolwise server answers at {self._server.url} ({error}): {_to_do(error)}"
            ) from error
        return self._answer(answer)

    def _silent(self, error: httpx.TimeoutException, patience_s: float) -> str:
        if isinstance(error, httpx.ConnectTimeout):
            return f"{self._server.url} cannot be reached within {CONNECT_S:g} s"
        return (
            f"{self._server.url} did not answer within {patience_s:g} s; what was asked for may go "
            "on there: look at it with `poolwise plans`"
        )

    def _answer(self, answer: httpx.Response) -> Mapping[str, JsonValue]:
        try:
            parsed = json.loads(answer.content) if answer.content else {}
        except ValueError:
            parsed = None
        if answer.is_success and isinstance(parsed, dict):
            return parsed
        told = _told(parsed) or f"HTTP {answer.status_code}"
        if answer.status_code == HTTPStatus.UNAUTHORIZED:
            why = "refuses the token" if self._server.token else "wants a token"
            raise InputError(f"{self._server.url} {why}: {_HOW_TO_WRITE}")
        if answer.status_code in _BAD_INPUT and isinstance(parsed, dict) and "detail" in parsed:
            raise InputError(told)
        if not isinstance(parsed, dict):
            raise ServerError(f"what answers at {self._server.url} is no Poolwise server: {told}")
        raise ServerError(told)


def _to_do(error: Exception) -> str:
    """What lets a server be reached that is not; OpenSSL's words tell why TLS failed."""
    told = str(error).upper().replace(" ", "_")
    if "CERTIFICATE_VERIFY_FAILED" in told:
        return f"name who signed its certificate by {CLIENT.authority}, a PEM file"
    if "ALERT_CERTIFICATE_REQUIRED" in told or "HANDSHAKE_FAILURE" in told:
        return f"it wants to be shown a certificate: {CLIENT.cert} and {CLIENT.key}, PEM files"
    if "ALERT_UNKNOWN_CA" in told:
        return f"it does not trust who signed {CLIENT.cert}"
    return "start it with `poolwise serve`, or give its address by --server or POOLWISE_SERVER"


def _told(problem: JsonValue) -> str:
    """What a problem says, field by field where it names any."""
    if not isinstance(problem, dict):
        return ""
    detail = str(problem.get("detail", ""))
    errors = problem.get("errors")
    fields = [
        f"{one.get('field')}: {one.get('problem')}"
        for one in (errors if isinstance(errors, list) else [])
        if isinstance(one, dict)
    ]
    return "\n".join(fields) or detail
