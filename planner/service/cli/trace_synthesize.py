"""`poolwise trace synthesize`: a trace from a description, like another one, or of clients."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from planner.domain.errors import InputError
from planner.domain.wording import counted
from planner.service.cli import output
from planner.service.cli.options import JsonOption, StartOption, instant, seconds
from planner.service.cli.trace_options import ForceOption, ToOption

if TYPE_CHECKING:
    import numpy as np

    from planner.domain.workload import Workload

EPILOG = (
    "Examples:\n\n"
    "poolwise trace synthesize --example > traffic.yaml\n\n"
    "poolwise trace synthesize --spec traffic.yaml trace.jsonl --seed 7\n\n"
    "poolwise trace synthesize --template support-chat trace.jsonl\n\n"
    "poolwise trace synthesize --like requests.jsonl more.jsonl\n\n"
    "poolwise trace synthesize --servegen data/language/m-large --clients 5 --from 0 "
    "--until 86400 trace.csv"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Drawn(NamedTuple):
    """What was drawn, and what to know about it."""

    workload: "Workload"
    remarks: list[str]


OutArgument = Annotated[
    Path | None,
    typer.Argument(
        help="File to write; gzipped where it ends in .gz.", metavar="OUT", show_default=False
    ),
]
SpecOption = Annotated[
    Path | None,
    typer.Option("--spec", "-s", help="Draw from this description (YAML).", metavar="FILE"),
]
TemplateOption = Annotated[
    str | None,
    typer.Option(
        "--template",
        help="Draw from a description that comes with Poolwise: legal-review, support-chat, "
        "coding-assistant, enterprise-rag or multi-agent.",
        metavar="NAME",
    ),
]
LikeOption = Annotated[
    Path | None,
    typer.Option("--like", help="Draw requests like those of this trace.", metavar="TRACE"),
]
ServegenOption = Annotated[
    Path | None,
    typer.Option(
        "--servegen",
        help="Draw from ServeGen's clients: a folder of chunk-N files, or a "
        "*_clients_10min.parquet.",
        metavar="PATH",
    ),
]
ClientsOption = Annotated[
    str | None,
    typer.Option(
        "--clients",
        help="With --servegen: how many clients to choose at random, or 'name:12,40'; "
        "default: all.",
        metavar="N|name:...",
    ),
]
FromOption = Annotated[
    float | None,
    typer.Option("--from", help="With --servegen: begin here, seconds.", callback=seconds),
]
UntilOption = Annotated[
    float | None,
    typer.Option("--until", help="With --servegen: end here, seconds.", callback=seconds),
]


def synthesize(
    out: OutArgument = None,
    *,
    spec: SpecOption = None,
    template: TemplateOption = None,
    like: LikeOption = None,
    servegen: ServegenOption = None,
    clients: ClientsOption = None,
    by_client: Annotated[
        bool,
        typer.Option("--by-client", help="With --servegen: each client is a request class."),
    ] = False,
    from_s: FromOption = None,
    until_s: UntilOption = None,
    start_at: StartOption = None,
    seed: Annotated[
        int, typer.Option("--seed", help="The same seed draws the same trace.", min=0)
    ] = 0,
    to: ToOption = None,
    force: ForceOption = False,
    example: Annotated[
        bool,
        typer.Option(
            "--example", help="Print a description with comments instead, or that of --template."
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Draw a trace from a description, like another trace, or from ServeGen's client tables.

    A trace --like another has its rate and burstiness window by window, its joint lengths and
    its share of reused prompt tokens. Clients keep their own rate, burstiness and lengths; a
    service is made smaller by choosing clients, never by leaving out requests.
    """
    if example:
        typer.echo(_example(template), nl=False)
        return
    sources = [path for path in (spec, like, servegen) if path is not None]
    if len(sources) + (template is not None) != 1 or out is None:
        raise InputError(
            "give one of --spec, --template, --like and --servegen, and OUT; or --example"
        )
    if servegen is None and (clients, from_s, until_s, by_client) != (None, None, None, False):
        raise InputError("--clients, --by-client, --from and --until are for --servegen")
    from numpy.random import default_rng

    from planner.service.cli.trace_write import check_out, format_of, write

    check_out(out, force=force, inputs=sources)
    target = format_of(out, to)
    rng = default_rng(seed)
    moment = instant(start_at, option="--start-at")
    with output.working("drawing"):
        if template is not None or spec is not None:
            drawn = _described(spec, template, moment, rng)
        elif like is not None:
            drawn = _like(like, moment, rng)
        else:
            drawn = _clients(sources[0], clients, (from_s, until_s), moment, rng, by_client)
    if len(drawn.workload) == 0:
        raise InputError(
            "no request was drawn: the rate is too low for the duration, or --seed unlucky"
        )
    write(drawn.workload, out, target, remarks=drawn.remarks, json=json)


def _example(template: str | None) -> str:
    from planner.service.documents.trace_description import EXAMPLE
    from planner.service.documents.workload_template import workload_template_text

    return EXAMPLE if template is None else workload_template_text(template)


def _described(
    path: Path | None,
    template: str | None,
    start_at: datetime | None,
    rng: "np.random.Generator",
) -> Drawn:
    from forecaster.synthesize import synthesize_classes
    from planner.service.documents.trace_description import read_trace_description
    from planner.service.documents.workload_template import workload_template

    document = workload_template(template or "") if path is None else read_trace_description(path)
    workload = synthesize_classes(
        document.descriptions(), start_at=start_at or document.start_at or _EPOCH, rng=rng
    )
    return Drawn(workload, [])


def _like(path: Path, start_at: datetime | None, rng: "np.random.Generator") -> Drawn:
    from forecaster.fit import fitted
    from forecaster.readers import read_trace
    from forecaster.synthesize import synthesize_classes

    trace = read_trace(path, start_at=start_at)
    output.note_skipped(path, trace.report.left_out)
    tick_s = trace.report.arrival_tick_s
    remarks = list(trace.report.remarks)
    if tick_s is not None:
        remarks.append(
            f"{path} has a clock of {tick_s:.3g} s: what is finer than ten ticks is not fitted, "
            "but drawn as if arrivals were spread evenly inside a tick"
        )
    descriptions = fitted(trace.workload, tick_s=tick_s, name=path.name)
    return Drawn(
        synthesize_classes(descriptions, start_at=trace.workload.start_at, rng=rng), remarks
    )


def _clients(
    path: Path,
    asked: str | None,
    span: tuple[float | None, float | None],
    start_at: datetime | None,
    rng: "np.random.Generator",
    by_client: bool,
) -> Drawn:
    from forecaster.client_traces import synthesize_clients
    from forecaster.clients import choose_clients
    from forecaster.readers.client_tables import read_client_table

    table = read_client_table(path)
    output.note_skipped(path, table.report.reasons)
    remarks = []
    known = table.longest_known()
    if span == (None, None) and table.missing.any():
        remarks.append(
            f"{counted(int(table.missing.sum()), 'window')} of missing data: drawn is the "
            "longest time "
            f"without any, {known[0]:g} s to {known[1]:g} s"
        )
        span_s = known
    else:
        span_s = (span[0] or 0.0, table.duration_s if span[1] is None else span[1])
    if not 0 <= span_s[0] < span_s[1] <= table.duration_s:
        raise InputError(
            f"--from {span_s[0]:g} --until {span_s[1]:g}: the table holds 0 s to "
            f"{table.duration_s:g} s"
        )
    if asked is None:
        chosen = table.clients
    elif asked.startswith("name:"):
        chosen = table.named([name.strip() for name in asked.removeprefix("name:").split(",")])
    else:
        chosen = choose_clients(table, _count(asked), span_s=span_s, rng=rng)
    drawn = synthesize_clients(
        table,
        chosen,
        span_s=span_s,
        start_at=start_at or _EPOCH,
        rng=rng,
        by_client=by_client,
    )
    some = ", ".join(drawn.clients[:10]) + (", ..." if len(drawn.clients) > 10 else "")
    remarks.append(f"{len(drawn.clients)} of {len(table.clients)} clients: {some}")
    return Drawn(drawn.workload, [*remarks, *drawn.remarks])


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InputError(f"--clients {text}: give a number, or names as in name:12,40")
    return int(text)
