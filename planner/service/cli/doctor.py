"""`poolwise doctor`: what stands in the way on this machine."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.service.cli import output
from planner.service.cli.options import JsonOption

if TYPE_CHECKING:
    from planner.service.doctor.finding import Finding

EPILOG = (
    "Examples:\n\npoolwise doctor\n\npoolwise doctor --spec spec.yaml\n\n"
    "Exit status 1: something has failed. Notes and what was skipped do not count. Nothing is "
    "written: the database is not made or migrated, a cluster is asked by dry runs."
)


def doctor(
    *,
    spec: Annotated[
        Path | None,
        typer.Option("--spec", "-s", help="Also look at its profiles and target.", metavar="FILE"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check machine, packages, engine, database, clocks, profiles and cluster: a line each."""
    from planner.domain.errors import InputError
    from planner.service.doctor.database import look_at_store
    from planner.service.doctor.deployment import look_at_spec
    from planner.service.doctor.finding import Checkup, failed
    from planner.service.doctor.machine import (
        look_at_engine,
        look_at_machine,
        look_at_packages,
    )
    from planner.service.settings import read_settings
    from planner.service.spec.catalogue import read_catalogue

    findings = look_at_packages()
    try:
        settings = read_settings(os.environ)
        known = read_catalogue(settings.catalogue.path)
    except InputError as error:
        findings.append(failed("settings", str(error), "correct the environment variable"))
    else:
        with output.working("looking"):
            findings += look_at_machine(settings.storage.state_dir)
            findings.append(look_at_engine(settings.engine.python))
            findings += look_at_store(settings.storage.database_url)
            findings += look_at_spec(spec, known)
    checkup = Checkup(findings=findings)
    if json:
        output.print_json(checkup)
    else:
        for finding in findings:
            _show(finding)
    if checkup.failed:
        raise typer.Exit(1)


def _show(finding: "Finding") -> None:
    todo = f": {finding.todo}" if finding.todo else ""
    typer.echo(f"{finding.health.upper():<8}{finding.check}: {finding.found}{todo}")
