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

# Each command is one module of this package; a new one is imported above and registered here.
app.command()(demo.demo)
app.command(epilog=init.EPILOG)(init.init)
app.command(epilog=plan.EPILOG)(plan.plan)
app.command(epilog=accelerators.EPILOG)(accelerators.accelerators)
app.command(epilog=shapes.EPILOG)(shapes.shapes)
app.command(epilog=simulate.EPILOG)(simulate.simulate)
app.command(epilog=forecast.EPILOG)(forecast.forecast)
app.command(epilog=recommend.EPILOG)(recommend.recommend)
app.command(epilog=report.EPILOG)(report.report)
app.command(epilog=serve.EPILOG)(serve.serve)
app.command(epilog=diff.EPILOG)(diff.diff)
app.command(epilog=diagnose.EPILOG)(diagnose.diagnose)
app.command(epilog=kv.EPILOG)(kv.kv)
app.command("kv-tiers", epilog=kv_tiers.EPILOG)(kv_tiers.kv_tiers)
app.command(epilog=status.EPILOG)(status.status)
app.command(epilog=validate.EPILOG)(validate.validate)
app.command(epilog=doctor.EPILOG)(doctor.doctor)
app.command(epilog=explain.EPILOG)(explain.explain)
app.command(epilog=backup.BACKUP_EPILOG)(backup.backup)
app.command(epilog=backup.RESTORE_EPILOG)(backup.restore)
app.command(epilog=decisions.DECISIONS_EPILOG)(decisions.decisions)
app.command("replay-decision", epilog=decisions.EPILOG)(decisions.replay_decision)
app.command(epilog=plans.EPILOG)(plans.plans)
app.command(epilog=SERVER_EPILOG)(plans.approve)
app.command(epilog=SERVER_EPILOG)(plans.reject)
app.command(epilog=plans.APPLY_EPILOG)(plans.apply)
app.command(epilog=plans.APPLY_EPILOG)(plans.rollback)
app.command(epilog=directives.PAUSE_EPILOG)(directives.pause)
app.command(epilog=SERVER_EPILOG)(directives.resume)
app.command(epilog=directives.PIN_EPILOG)(directives.pin)
app.command(epilog=directives.PIN_EPILOG)(directives.unpin)
app.command(epilog=SERVER_EPILOG)(directives.mode)
app.command(epilog=SERVER_EPILOG)(directives.directives)
app.add_typer(audit.app, name="audit")
app.add_typer(backtest.app, name="backtest")
app.add_typer(gate.app, name="gate")
app.add_typer(deployment.app, name="deployment")
app.add_typer(profile.app, name="profile")
app.add_typer(render.app, name="render")
app.add_typer(token.app, name="token")
app.add_typer(trace.app, name="trace")


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
