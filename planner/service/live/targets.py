"""Which parts of a running deployment to ask, and through whom, as people write it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from planner.domain.errors import InputError
from planner.domain.fleet import Role

if TYPE_CHECKING:
    from serving.telemetry.prometheus import PrometheusServer
    from serving.telemetry.signals import Source, TargetKind
    from serving.telemetry.targets import Target

WINDOW_S = 120.0
"""Rates from a Prometheus server are taken over so long, seconds."""
ROUTERS = ("smg", "vllm-router", "dynamo", "llm-d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Addresses that were given by hand; all empty: the endpoints file is read."""

    workers: Sequence[str] = ()
    routers: Sequence[str] = ()
    gate: str | None = None
    hardware: Sequence[str] = ()

    @property
    def anything(self) -> bool:
        """Whether any was given."""
        return bool(self.workers or self.routers or self.gate or self.hardware)


@dataclass(frozen=True, slots=True, kw_only=True)
class Through:
    """A Prometheus server as it was given."""

    url: str | None
    selector: str | None
    window_s: float | None
    role_labels: Sequence[str]
    headers: Sequence[str]


def targets_of(asked: Asked) -> "tuple[Target, ...]":
    """The parts at the given addresses, or those of the deployment that runs here.

    Raises
    ------
    InputError
        When an address, a role or a kind cannot be used.
    EngineError
        When nothing was given, and no deployment runs from the state directory.
    """
    from planner.service.settings import read_settings
    from serving.fleet.endpoints import read_endpoints
    from serving.telemetry import targets
    from serving.telemetry.signals import Source, TargetKind

    if not asked.anything:
        state_dir = read_settings(os.environ).storage.state_dir
        return targets.targets_of(read_endpoints(state_dir))
    found = [_worker(text) for text in asked.workers]
    for text in asked.routers:
        kind, url = _pair(text, option="--router", first="KIND", known=ROUTERS)
        found.append(_target(f"{kind} {_short(url)}", url, TargetKind.ROUTER, Source(kind)))
    for url in asked.hardware:
        _check_url(url, option="--hardware")
        found.append(_target(f"hardware {_short(url)}", url, TargetKind.HARDWARE, Source.DCGM))
    if asked.gate is not None:
        _check_url(asked.gate, option="--gate")
        found.insert(0, _target("gate", asked.gate, TargetKind.GATE, Source.GATE))
    return tuple(found)


def _worker(text: str) -> "Target":
    from dataclasses import replace

    from serving.telemetry.signals import TargetKind

    known = [role.value for role in Role]
    role, url = _pair(text, option="--worker", first="ROLE", known=known)
    target = _target(f"{role} {_short(url)}", url, TargetKind.ENGINE, None)
    return replace(target, role=Role(role))


def _target(name: str, url: str, kind: "TargetKind", source: "Source | None") -> "Target":
    from serving.telemetry.targets import Target, metrics_page

    base = url.rstrip("/").removesuffix("/metrics")
    return Target(name=name, url=base, metrics_url=metrics_page(url), kind=kind, source=source)


def _pair(text: str, *, option: str, first: str, known: Sequence[str]) -> tuple[str, str]:
    head, found, url = text.partition("=")
    if not found or head not in known:
        raise InputError(
            f"{option} {text!r}: write it as {first}=URL, {first} one of {', '.join(known)}"
        )
    _check_url(url, option=option)
    return head, url


def _check_url(url: str, *, option: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise InputError(f"{option}: {url!r} is no address; write it as http://10.0.0.7:8000")


def _short(url: str) -> str:
    return urlsplit(url).netloc


def server_of(through: Through) -> "PrometheusServer | None":
    """The Prometheus server that was given; None when none was.

    Raises
    ------
    InputError
        When its address or a header cannot be used, or options for it are given without it.
    """
    from planner.service.settings import read_settings
    from serving.telemetry.prometheus import ROLE_LABELS, PrometheusServer

    if through.url is None:
        if through.selector or through.window_s or through.role_labels or through.headers:
            raise InputError(
                "--selector, --window, --role-label and --prometheus-header go with --prometheus"
            )
        return None
    _check_url(through.url, option="--prometheus")
    authorization = read_settings(os.environ).telemetry.prometheus_authorization
    headers = {} if authorization is None else {"Authorization": authorization}
    for text in through.headers:
        name, found, value = text.partition("=")
        if not found or not name.strip():
            raise InputError(f"--prometheus-header {text!r}: write it as NAME=VALUE")
        headers[name.strip()] = value
    return PrometheusServer(
        url=through.url,
        selector=(through.selector or "").strip().removeprefix("{").removesuffix("}"),
        headers=headers,
        window_s=through.window_s or WINDOW_S,
        role_labels=(*through.role_labels, *ROLE_LABELS),
    )
