"""`poolwise status`: what a running deployment does, all signals in their units."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import EngineError, InputError
from planner.service.cli import output
from planner.service.cli.options import EstimatesOption, JsonOption, ModelOption
from planner.service.cli.status_options import (
    HeaderOption,
    PrometheusOption,
    RoleLabelOption,
    SelectorOption,
    WindowOption,
)
from planner.service.live.targets import Asked, Through, server_of, targets_of

if TYPE_CHECKING:
    from serving.telemetry.reader import Reading
    from serving.telemetry.signals import DeploymentSignals
    from serving.telemetry.whole import Promised

EPILOG = (
    "Examples:\n\n"
    "poolwise status\n\n"
    "poolwise status --worker prefill=http://10.0.0.7:8000 --worker decode=http://10.0.0.8:8000 "
    "--router smg=http://10.0.0.9:29000 --spec spec.yaml\n\n"
    "poolwise status --prometheus http://prometheus:9090 --selector 'namespace=\"prod\"' --json\n\n"
    "Exit status: 0 when anything answers (what is down is told), or when the spec's target is "
    "dry_run, of which nothing runs; 1 when nothing answers, 2 bad input. What is not known is a "
    "dash and never 0; the reasons stand below."
)
NOTHING_RUNS = (
    "the spec's target is dry_run, of which nothing runs: `--worker`, `--gate` or `--prometheus` "
    "look at what serves elsewhere"
)
LONGEST_S = 3600.0
SHORTEST_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """How to read all targets once more, and over how long; None: nothing runs that could tell."""

    read: "Callable[[float], Reading] | None"
    interval_s: float


def status(
    *,
    worker: Annotated[
        list[str] | None,
        typer.Option("--worker", help="An engine (vLLM, SGLang); repeatable.", metavar="ROLE=URL"),
    ] = None,
    router: Annotated[
        list[str] | None,
        typer.Option(
            "--router",
            help="A router's metrics page; KIND: smg, vllm-router, dynamo, llm-d; repeatable.",
            metavar="KIND=URL",
        ),
    ] = None,
    gate: Annotated[
        str | None, typer.Option("--gate", help="Poolwise's gate.", metavar="URL")
    ] = None,
    hardware: Annotated[
        list[str] | None,
        typer.Option("--hardware", help="A DCGM exporter; repeatable.", metavar="URL"),
    ] = None,
    prometheus: PrometheusOption = None,
    selector: SelectorOption = None,
    role_label: RoleLabelOption = None,
    prometheus_header: HeaderOption = None,
    window: WindowOption = None,
    spec: Annotated[
        Path | None,
        typer.Option("--spec", "-s", help="For promises, prices, predictions.", metavar="FILE"),
    ] = None,
    model: ModelOption = None,
    allow_estimates: EstimatesOption = False,
    interval: Annotated[
        float, typer.Option("--interval", help="Seconds between the two looks.")
    ] = 5.0,
    deadline: Annotated[
        float, typer.Option("--deadline", help="Seconds that each target is given.")
    ] = 5.0,
    watch: Annotated[
        float | None,
        typer.Option("--watch", help="Look again every so many seconds, until Ctrl-C."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show what a running deployment does: latency, throughput, queues, KV cache, promises, cost.

    Without addresses: the deployment that runs from the state directory.
    """
    for option, value in (
        ("--interval", interval),
        ("--deadline", deadline),
        ("--watch", watch),
        ("--window", window),
    ):
        _check_seconds(option, value)
    asked = Asked(workers=worker or (), routers=router or (), gate=gate, hardware=hardware or ())
    through = Through(
        url=prometheus,
        selector=selector,
        window_s=window,
        role_labels=role_label or (),
        headers=prometheus_header or (),
    )
    promised = _promised(spec, model, allow_estimates=allow_estimates)
    look = _look(asked, through, promised, interval_s=watch or interval, deadline_s=deadline)
    if watch is None:
        _show(_read(look, promised), as_json=json)
        return
    _watch(look, promised, as_json=json)


def _check_seconds(option: str, value: float | None) -> None:
    if value is not None and not SHORTEST_S <= value <= LONGEST_S:
        raise InputError(f"{option} {value:g}: give {SHORTEST_S:g} to {LONGEST_S:g} seconds")


def _promised(spec: Path | None, model: str | None, *, allow_estimates: bool) -> "Promised | None":
    if spec is None:
        if model is not None:
            raise InputError("--model names one of a spec's models: give --spec")
        return None
    from planner.service.answers.planning import sole_model
    from planner.service.cli.catalogue_option import known_accelerators
    from planner.service.spec.file import read_spec
    from serving.telemetry.whole import Promised

    read = read_spec(spec, allow_estimates=allow_estimates, catalogue=known_accelerators())
    return Promised(spec=read, model=sole_model(read, model))


def _look(
    asked: Asked,
    through: Through,
    promised: "Promised | None",
    *,
    interval_s: float,
    deadline_s: float,
) -> _Look:
    from planner.domain.spec import TargetKind
    from serving.telemetry.reader import PrometheusReader, StraightReader

    server = server_of(through)
    if server is None:
        try:
            straight = StraightReader(targets_of(asked), deadline_s)
        except EngineError:
            if promised is None or promised.spec.target is not TargetKind.DRY_RUN:
                raise
            return _Look(read=None, interval_s=interval_s)
        return _Look(read=straight.read, interval_s=interval_s)
    if asked.anything:
        raise InputError(
            "--prometheus reads all targets: leave --worker, --router, --gate and --hardware away"
        )
    reader = PrometheusReader(server, deadline_s)
    return _Look(read=lambda _interval_s: reader.read(), interval_s=interval_s)


def _read(look: _Look, promised: "Promised | None") -> "DeploymentSignals":
    from datetime import UTC, datetime

    from planner.service.live.status import stored_at, with_bottleneck, with_forecast
    from planner.service.settings import read_settings
    from serving.telemetry.reader import NOTHING
    from serving.telemetry.whole import deployment_signals

    reading = NOTHING
    if look.read is not None:
        with output.working(f"looking at all targets for {look.interval_s:g} s"):
            reading = look.read(look.interval_s)
    looked_at = datetime.now(UTC)
    signals = deployment_signals(reading.targets, looked_at=looked_at, promised=promised)
    if look.read is None:  # roles that nothing could fill are not lacking
        signals = replace(signals, lacks=(), bottleneck_why=NOTHING_RUNS)
    else:
        signals = with_bottleneck(signals, reading, promised)
    if promised is None:
        return signals
    url = read_settings(os.environ).storage.database_url
    return with_forecast(signals, promised, lambda: stored_at(url))


def _watch(look: _Look, promised: "Promised | None", *, as_json: bool) -> None:
    """Look again and again; what goes wrong in one look is told, and the next one made."""
    import time

    first_s = time.monotonic()
    turn = 0
    while True:
        try:
            signals = _read(look, promised)
        except EngineError as error:
            output.note(str(error))
        else:
            if not as_json and sys.stdout.isatty():
                output.console().clear()
            _show(signals, as_json=as_json, lines=True)
        turn += 1
        # Reading straight waits by itself; through Prometheus there is nothing to wait for.
        time.sleep(max(first_s + turn * look.interval_s - time.monotonic(), 0.0))


def _show(signals: "DeploymentSignals", *, as_json: bool, lines: bool = False) -> None:
    from planner.service.cli.status_tables import show_status
    from planner.service.documents.status import status_document

    if not as_json:
        show_status(signals)
    elif lines:
        typer.echo(status_document(signals).model_dump_json())
    else:
        output.print_json(status_document(signals))
