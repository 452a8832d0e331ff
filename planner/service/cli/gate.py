"""`poolwise gate`: the front that clients talk to, and its API keys."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from planner.domain.errors import InputError
from planner.service.cli.options import EstimatesOption, JsonOption, ModelOption, SpecOption

app = typer.Typer(no_args_is_help=True, help="The front that clients talk to, and its API keys.")
key_app = typer.Typer(no_args_is_help=True, help="API keys: who may ask, how much, how urgent.")
app.add_typer(key_app, name="key")

EPILOG = (
    "Examples:\n\n"
    "poolwise gate key add shop --class chat --priority 10 --requests-per-s 20\n\n"
    "poolwise gate run --spec spec.yaml\n\n"
    "poolwise gate run --spec spec.yaml --router http://127.0.0.1:30000 --anonymous\n\n"
    "Without --router it follows the deployment that runs from $POOLWISE_STATE_DIR. Clients may "
    "talk to the router directly just as well: nothing depends on the gate."
)
KeysOption = Annotated[
    Path | None,
    typer.Option(
        "--keys", help="File of API keys (default: gate-keys.json in the state directory)."
    ),
]


@app.command(epilog=EPILOG)
def run(
    *,
    spec: SpecOption,
    router: Annotated[
        list[str] | None,
        typer.Option("--router", help="A router; again for each further cell.", metavar="URL"),
    ] = None,
    keys: KeysOption = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on.", metavar="ADDRESS")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="Port, 0 for any free one.", min=0, max=65535)
    ] = 8766,
    listen_fd: Annotated[
        int | None,
        typer.Option(
            "--listen-fd",
            min=0,
            help="Listen on this open socket instead, which whoever starts the gate keeps open.",
        ),
    ] = None,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="Take requests of this machine without a key.")
    ] = False,
    admission: Annotated[
        bool, typer.Option("--admission/--no-admission", help="Shed what would break promises.")
    ] = True,
    direct: Annotated[
        bool,
        typer.Option("--direct/--no-direct", help="Send short prompts straight to decode workers."),
    ] = True,
    record: Annotated[
        bool, typer.Option("--record/--no-record", help="Keep figures of requests in the store.")
    ] = True,
    drain_s: Annotated[
        float,
        typer.Option(
            "--drain-s", min=0, max=3600, help="Answers under way get so long to end after SIGTERM."
        ),
    ] = 30.0,
    model: ModelOption = None,
    allow_estimates: EstimatesOption = False,
    json: JsonOption = False,
) -> None:
    """Serve an OpenAI-compatible API that passes through to a router, with admission by promise."""
    from planner.service.fleet.gate import GateOptions, run_gate

    run_gate(
        GateOptions(
            spec=spec,
            model=model,
            routers=tuple(router or ()),
            keys=keys,
            host=host,
            port=port,
            listen_fd=listen_fd,
            anonymous=anonymous,
            admission=admission,
            direct=direct,
            record=record,
            drain_s=drain_s,
            allow_estimates=allow_estimates,
            as_json=json,
        )
    )


@key_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Whose key it is; unique.")],
    *,
    request_class: Annotated[
        str, typer.Option("--class", help="Request class: whose SLO in the spec it has.")
    ] = "default",
    priority: Annotated[
        int, typer.Option("--priority", help="Higher ones are shed last.", min=-1000, max=1000)
    ] = 0,
    requests_per_s: Annotated[
        float | None,
        typer.Option(
            "--requests-per-s", help="Limit, requests a second; 5 s of it may come at once."
        ),
    ] = None,
    tokens_per_s: Annotated[
        float | None,
        typer.Option("--tokens-per-s", help="Limit, tokens of prompts and answers a second."),
    ] = None,
    keys: KeysOption = None,
    json: JsonOption = False,
) -> None:
    """Make a key; it is printed once, and kept as a hash."""
    from planner.service.fleet.gate import keys_path
    from serving.gate.keys import ApiKey, add_key

    try:
        wanted = ApiKey(
            name=name,
            key_hash="",
            request_class=request_class,
            priority=priority,
            requests_per_s=requests_per_s,
            tokens_per_s=tokens_per_s,
        )
    except ValueError as error:
        raise InputError(f"this key cannot be made: {error}") from error
    path = keys_path(keys)
    made, secret = add_key(path, wanted)
    if json:
        typer.echo(json_module.dumps({"name": made.name, "key": secret, "file": str(path)}))
    else:
        typer.echo(f"Key of {made.name}, shown only now: {secret}\n(its hash is in {path})")


@key_app.command("list")
def list_(*, keys: KeysOption = None, json: JsonOption = False) -> None:
    """Show the keys' names and what they may do; the keys themselves are not known any more."""
    from dataclasses import asdict

    from planner.service.cli import output
    from planner.service.fleet.gate import keys_path
    from serving.gate.keys import read_keys

    path = keys_path(keys)
    found = read_keys(path).keys
    if json:
        shown = [{k: v for k, v in asdict(key).items() if k != "key_hash"} for key in found]
        typer.echo(json_module.dumps({"file": str(path), "keys": shown}, indent=2))
        return
    rows = [
        (
            key.name,
            key.request_class,
            str(key.priority),
            _limit(key.requests_per_s),
            _limit(key.tokens_per_s),
            key.created_at,
        )
        for key in found
    ]
    columns = ("name", "class", "priority", "requests/s", "tokens/s", "made")
    output.print_table(f"API keys in {path}", columns, rows, numbers_from=2)


def _limit(value: float | None) -> str:
    return "no limit" if value is None else f"{value:g}"


@key_app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    *,
    keys: KeysOption = None,
) -> None:
    """Take a key away; a running gate refuses it within seconds."""
    from planner.service.fleet.gate import keys_path
    from serving.gate.keys import revoke_key

    path = keys_path(keys)
    revoke_key(path, name)
    typer.echo(f"Key of {name} revoked (in {path})")
