"""`poolwise pause, resume, pin, unpin, mode, directives`: orders of people to a deployment."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import InputError
from planner.service.cli import output
from planner.service.cli.options import JsonOption, instant
from planner.service.cli.server_options import (
    SERVER_EPILOG,
    DeploymentOption,
    ReasonOption,
    ServerOption,
    TokenFileOption,
    print_answer,
    talking,
)

if TYPE_CHECKING:
    from pydantic import JsonValue

PAUSE_EPILOG = (
    "Examples:\n\npoolwise pause all --for 2h --reason 'network work'\n\n"
    "poolwise pause in --until 2026-12-01T06:00:00Z\n\n"
    "Holds for the loop, applies and rollbacks, whichever process leads; serving goes on.\n\n"
    + SERVER_EPILOG
)
PIN_EPILOG = (
    "Examples:\n\npoolwise pin decode:h100:tp2 6 --for 1d --reason 'load test'\n\n"
    "poolwise unpin decode:h100:tp2\n\n" + SERVER_EPILOG
)
EPILOG = SERVER_EPILOG
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST_S = 10 * 366 * 86_400


class Direction(StrEnum):
    """What is paused. in: capacity goes. out: capacity comes. all: both."""

    IN = "in"
    OUT = "out"
    ALL = "all"


class Mode(StrEnum):
    """A loop's mode, or the spec's own."""

    OFF = "off"
    ADVISE = "advise"
    APPROVE = "approve"
    AUTO = "auto"
    SPEC = "spec"


UntilOption = Annotated[
    str | None,
    typer.Option("--until", help="When it is over, as 2026-12-01T06:00:00Z.", metavar="TIME"),
]
ForOption = Annotated[
    str | None,
    typer.Option("--for", help="How long it holds, as 90m, 2h or 1d.", metavar="DURATION"),
]
WhatArgument = Annotated[Direction, typer.Argument(help="in, out or all.", metavar="WHAT")]
PoolArgument = Annotated[str, typer.Argument(help="Its label, as decode:h100:tp2.", metavar="POOL")]


def pause(
    what: WhatArgument = Direction.ALL,
    *,
    until: UntilOption = None,
    duration: ForOption = None,
    reason: ReasonOption = "",
    deployment: DeploymentOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    json: JsonOption = False,
) -> None:
    """Let no capacity go (in), come (out), or either (all), until it is resumed."""
    body = _order(until, duration, reason) | {"what": what.value}
    with talking(server, token_file) as client:
        name = client.deployment(deployment)
        answer = client.send("POST", "v1", "deployments", name, "pause", body=body)
    _show(answer, as_json=json)


def resume(
    what: WhatArgument = Direction.ALL,
    *,
    deployment: DeploymentOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    json: JsonOption = False,
) -> None:
    """Take a pause back."""
    with talking(server, token_file) as client:
        name = client.deployment(deployment)
        body: dict[str, JsonValue] = {"what": what.value}
        answer = client.send("POST", "v1", "deployments", name, "resume", body=body)
    _show(answer, as_json=json)


def pin(
    pool: PoolArgument,
    replicas: Annotated[int, typer.Argument(help="How many.", min=0, metavar="REPLICAS")],
    *,
    until: UntilOption = None,
    duration: ForOption = None,
    reason: ReasonOption = "",
    deployment: DeploymentOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    json: JsonOption = False,
) -> None:
    """Hold a pool at a count of replicas, whatever plans want."""
    body = _order(until, duration, reason) | {"replicas": replicas}
    with talking(server, token_file) as client:
        name = client.deployment(deployment)
        answer = client.send("PUT", "v1", "deployments", name, "pins", pool, body=body)
    _show(answer, as_json=json)


def unpin(
    pool: PoolArgument,
    *,
    deployment: DeploymentOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    json: JsonOption = False,
) -> None:
    """Take a pin back."""
    with talking(server, token_file) as client:
        name = client.deployment(deployment)
        answer = client.send("DELETE", "v1", "deployments", name, "pins", pool)
    _show(answer, as_json=json)


def mode(
    mode: Annotated[
        Mode, typer.Argument(help="off, advise, approve, auto, or spec: as the spec says.")
    ],
    *,
    until: UntilOption = None,
    duration: ForOption = None,
    reason: ReasonOption = "",
    deployment: DeploymentOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    json: JsonOption = False,
) -> None:
    """Change what the loop may do by itself, from its next tick on."""
    if mode is Mode.SPEC and (until or duration or reason):
        raise InputError("`poolwise mode spec` takes an order back: no --until, --for or --reason")
    order = _order(until, duration, reason)
    with talking(server, token_file) as client:
        name = client.deployment(deployment)
        where = ("v1", "deployments", name, "mode")
        if mode is Mode.SPEC:
            answer = client.send("DELETE", *where)
        else:
            answer = client.send("PUT", *where, body=order | {"mode": mode.value})
    _show(answer, as_json=json)


def directives(
    *,
    deployment: DeploymentOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    json: JsonOption = False,
) -> None:
    """Show what people ordered, as far as it is in force, and the loop's mode."""
    with talking(server, token_file) as client:
        name = client.deployment(deployment)
        answer = client.get("v1", "deployments", name, "directives")
    _show(answer, as_json=json)


def _order(until: str | None, duration: str | None, reason: str) -> "dict[str, JsonValue]":
    if until is not None and duration is not None:
        raise InputError("give --until or --for, not both")
    until_at = instant(until, option="--until")
    if duration is not None:
        until_at = datetime.now(UTC) + timedelta(seconds=_seconds(duration))
    return {"until_at": None if until_at is None else until_at.isoformat(), "reason": reason}


def _seconds(duration: str) -> float:
    number, unit = duration[:-1], duration[-1:]
    try:
        seconds = float(number) * _UNITS[unit]
    except (KeyError, ValueError) as error:
        raise InputError(f"--for {duration!r}: write it as 90s, 30m, 2h or 1d") from error
    if not 0 < seconds <= _LONGEST_S:
        raise InputError(f"--for {duration!r}: give more than 0 s and at most 10 years")
    return seconds


def _show(answer: "Mapping[str, JsonValue]", *, as_json: bool) -> None:
    if as_json:
        print_answer(answer)
        return
    own = "" if answer.get("mode") == answer.get("mode_of_spec") else "; as ordered, not as in spec"
    typer.echo(f"{answer.get('deployment')}: the loop's mode is {answer.get('mode')}{own}")
    if answer.get("paused_by_spec") not in (None, "none"):
        typer.echo(f"the spec itself pauses: {answer.get('paused_by_spec')}")
    found = answer.get("directives")
    orders = found if isinstance(found, list) else []
    lines = [str(one.get("sentence")) for one in orders if isinstance(one, dict)]
    output.print_lines("Ordered by people", lines)
    if not lines:
        typer.echo("nothing is ordered by people")
