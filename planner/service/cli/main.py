"""The `poolwise` command: registers the commands, and turns errors into one message.

Exit status: 0 done, 1 failed, 2 bad input, 130 interrupted. Modules of commands import heavy
libraries inside their functions, so that `--help` is quick.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from planner.domain.errors import InputError, PoolwiseError
from planner.service.cli import (
    accelerators,
    audit,
    backtest,
    backup,
    decisions,
    demo,
    deployment,
    diagnose,
    diff,
    directives,
    doctor,
    explain,
    forecast,
    gate,
    init,
    kv,
    kv_tiers,
    plan,
    plans,
    profile,
    recommend,
    render,
    report,
    serve,
    shapes,
    simulate,
    status,
    token,
    trace,
    validate,
)
from planner.service.cli.server_options import SERVER_EPILOG
from planner.service.security.redaction import redact

app = typer.Typer(
    name="poolwise",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Each command is one module of this package; a new one is imported above and registered here, under
# the heading of `poolwise --help` where people will look for it.
START = "Start here"
app.command(rich_help_panel=START)(demo.demo)
app.command(epilog=init.EPILOG, rich_help_panel=START)(init.init)
app.command(epilog=validate.EPILOG, rich_help_panel=START)(validate.validate)
app.command(epilog=doctor.EPILOG, rich_help_panel=START)(doctor.doctor)
app.command(epilog=explain.EPILOG, rich_help_panel=START)(explain.explain)

PLAN = "Plan, and prove it"
app.command(epilog=plan.EPILOG, rich_help_panel=PLAN)(plan.plan)
app.command(epilog=simulate.EPILOG, rich_help_panel=PLAN)(simulate.simulate)
app.command(epilog=report.EPILOG, rich_help_panel=PLAN)(report.report)
app.command(epilog=recommend.EPILOG, rich_help_panel=PLAN)(recommend.recommend)
app.command(epilog=diff.EPILOG, rich_help_panel=PLAN)(diff.diff)
app.add_typer(render.app, name="render", rich_help_panel=PLAN)

KNOW = "What to plan from: traces, forecasts, profiles"
app.add_typer(trace.app, name="trace", rich_help_panel=KNOW)
app.command(epilog=forecast.EPILOG, rich_help_panel=KNOW)(forecast.forecast)
app.add_typer(backtest.app, name="backtest", rich_help_panel=KNOW)
app.add_typer(profile.app, name="profile", rich_help_panel=KNOW)
app.command(epilog=shapes.EPILOG, rich_help_panel=KNOW)(shapes.shapes)
app.command(epilog=accelerators.EPILOG, rich_help_panel=KNOW)(accelerators.accelerators)

RUNS = "What runs"
app.add_typer(deployment.app, name="deployment", rich_help_panel=RUNS)
app.add_typer(gate.app, name="gate", rich_help_panel=RUNS)
app.command(epilog=status.EPILOG, rich_help_panel=RUNS)(status.status)
app.command(epilog=diagnose.EPILOG, rich_help_panel=RUNS)(diagnose.diagnose)
app.command(epilog=kv.EPILOG, rich_help_panel=RUNS)(kv.kv)
app.command("kv-tiers", epilog=kv_tiers.EPILOG, rich_help_panel=RUNS)(kv_tiers.kv_tiers)

SERVER = "The server, its loop and its store"
app.command(epilog=serve.EPILOG, rich_help_panel=SERVER)(serve.serve)
app.add_typer(token.app, name="token", rich_help_panel=SERVER)
app.add_typer(audit.app, name="audit", rich_help_panel=SERVER)
app.command(epilog=backup.BACKUP_EPILOG, rich_help_panel=SERVER)(backup.backup)
app.command(epilog=backup.RESTORE_EPILOG, rich_help_panel=SERVER)(backup.restore)

ORDERS = "Decide, on a server"
app.command(epilog=plans.EPILOG, rich_help_panel=ORDERS)(plans.plans)
app.command(epilog=SERVER_EPILOG, rich_help_panel=ORDERS)(plans.approve)
app.command(epilog=SERVER_EPILOG, rich_help_panel=ORDERS)(plans.reject)
app.command(epilog=plans.APPLY_EPILOG, rich_help_panel=ORDERS)(plans.apply)
app.command(epilog=plans.APPLY_EPILOG, rich_help_panel=ORDERS)(plans.rollback)
app.command(epilog=directives.PAUSE_EPILOG, rich_help_panel=ORDERS)(directives.pause)
app.command(epilog=SERVER_EPILOG, rich_help_panel=ORDERS)(directives.resume)
app.command(epilog=directives.PIN_EPILOG, rich_help_panel=ORDERS)(directives.pin)
app.command(epilog=directives.PIN_EPILOG, rich_help_panel=ORDERS)(directives.unpin)
app.command(epilog=SERVER_EPILOG, rich_help_panel=ORDERS)(directives.mode)
app.command(epilog=SERVER_EPILOG, rich_help_panel=ORDERS)(directives.directives)
app.command(epilog=decisions.DECISIONS_EPILOG, rich_help_panel=ORDERS)(decisions.decisions)
app.command("replay-decision", epilog=decisions.EPILOG, rich_help_panel=ORDERS)(
    decisions.replay_decision
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"poolwise {version('poolwise')}")
        raise typer.Exit


@app.callback()
def _poolwise(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Decide how many prefill and decode workers an LLM service needs, and keep it so.

    Times are seconds, sizes tokens or bytes, money USD, in every file and option.
    """


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit status."""
    if sys.stdout is None:  # closed by whoever started us
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  lives as long as the process
    try:
        typer.main.get_command(app).main(args=list(arguments), prog_name="poolwise")
    except SystemExit as exit_:
        return _flushed(exit_.code if isinstance(exit_.code, int) else 1)
    except KeyboardInterrupt:
        return 130
    except PoolwiseError as error:
        _complain(str(error))
        return 2 if isinstance(error, InputError) else 1
    except OSError as error:
        return _closed_pipe() if isinstance(error, BrokenPipeError) else _io_failed(error)
    except Exception as error:  # the last resort: a person gets a line, the log the traceback
        _complain(f"unexpected {type(error).__name__}: {_first_line(error)}{_logged()}")
        return 1
    return _flushed(0)


def _complain(text: str) -> None:
    typer.echo(f"poolwise: {redact(text)}", err=True)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no message"])[0]


def _flushed(status: int) -> int:
    """Flush what was printed; whoever closed the pipe is not told about it."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return _closed_pipe() if isinstance(error, BrokenPipeError) else _io_failed(error)
    return status


def _io_failed(error: OSError) -> int:
    """Say what could not be written or read; a full disk is no fault of ours."""
    _complain(f"cannot write or read: {error}")
    _closed_pipe()
    return 1


def _closed_pipe() -> int:
    """Keep the interpreter from complaining when it flushes at exit; 141 as for SIGPIPE."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def _logged() -> str:
    """Write the traceback to a log file; where it is, as the end of a sentence."""
    import tempfile
    import traceback
    from datetime import UTC, datetime

    from planner.service.settings import read_settings

    text = redact(f"{datetime.now(UTC).isoformat()} {sys.argv}\n{traceback.format_exc()}\n")
    name = f"poolwise-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"
    try:
        folder = read_settings(os.environ).storage.state_dir / "logs"
    except PoolwiseError:
        folder = Path(tempfile.gettempdir())
    for place in (folder, Path(tempfile.gettempdir())):
        try:
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text, encoding="utf-8")
        except OSError:
            continue
        return f"; this is a fault of Poolwise, its traceback is in {place / name}"
    return "; this is a fault of Poolwise (and no log could be written)"


if __name__ == "__main__":
    main()
