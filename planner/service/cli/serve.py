"""`poolwise serve`: API, dashboard and control loop."""

from pathlib import Path
from typing import Annotated

import typer

from planner.service.cli.options import EstimatesOption, JsonOption, ModelOption
from planner.service.telemetry.observability import LogFormat

EPILOG = (
    "Examples:\n\n"
    "poolwise serve --spec spec.yaml\n\n"
    "poolwise serve --spec chat.yaml --spec search.yaml    (or a folder: --spec specs)\n\n"
    "poolwise serve --spec spec.yaml --port 0 --insecure-local\n\n"
    "poolwise serve --spec poolwise-demo/spec.yaml --dry-run\n\n"
    "poolwise serve --spec spec.yaml --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem\n\n"
    "The admin's bearer token is printed once, when the database is new; `poolwise token` makes "
    "others. All but /healthz, /readyz and /metrics needs one. State is kept in "
    "$POOLWISE_STATE_DIR (default ~/.local/state/poolwise). Ctrl-C stops it; serving goes on."
)

SpecsOption = Annotated[
    list[Path],
    typer.Option(
        "--spec",
        "-s",
        help="A spec (YAML), or a folder of them; once for every deployment.",
        metavar="FILE",
        show_default=False,
    ),
]
CertOption = Annotated[
    Path | None,
    typer.Option("--tls-cert", help="Speak HTTPS with this certificate (PEM).", metavar="FILE"),
]
KeyOption = Annotated[
    Path | None,
    typer.Option("--tls-key", help="Its private key (PEM, mode 600).", metavar="FILE"),
]
ClientCaOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-client-ca",
        help="Let in only clients with a certificate of this authority (PEM).",
        metavar="FILE",
    ),
]


def serve(
    *,
    spec: SpecsOption,
    host: Annotated[
        str | None,
        typer.Option("--host", help="Address to listen on (default 127.0.0.1).", metavar="ADDRESS"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", help="Port, 0 for any free one (default 8765).", min=0, max=65535),
    ] = None,
    keda_port: Annotated[
        int | None,
        typer.Option(
            "--keda-port",
            help="Answer KEDA's external scaler on this port too, 0 for any free one.",
            min=0,
            max=65535,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Change nothing, whatever target the spec names: show what would be."
        ),
    ] = False,
    insecure_local: Annotated[
        bool,
        typer.Option(
            "--insecure-local", help="Let everybody on this machine do everything without a token."
        ),
    ] = False,
    anonymous_reads: Annotated[
        bool,
        typer.Option("--anonymous-reads", help="Let whoever reaches the address read."),
    ] = False,
    tls_cert: CertOption = None,
    tls_key: KeyOption = None,
    tls_client_ca: ClientCaOption = None,
    new_token: Annotated[
        bool,
        typer.Option("--new-token", help="Make a new admin token; all old ones end."),
    ] = False,
    log_format: Annotated[
        LogFormat | None,
        typer.Option("--log-format", help="Of the log on standard error (default key-value)."),
    ] = None,
    model: ModelOption = None,
    allow_estimates: EstimatesOption = False,
    json: JsonOption = False,
) -> None:
    """Serve the REST API under /v1 and the dashboard, and run the control loop of every spec."""
    from planner.service.server import ServeOptions, run

    run(
        ServeOptions(
            specs=tuple(spec),
            host=host,
            port=port,
            keda_port=keda_port,
            dry_run=dry_run,
            insecure_local=insecure_local,
            anonymous_reads=anonymous_reads,
            tls_cert=tls_cert,
            tls_key=tls_key,
            tls_client_ca=tls_client_ca,
            new_token=new_token,
            model=model,
            allow_estimates=allow_estimates,
            as_json=json,
            log_format=log_format,
        )
    )
