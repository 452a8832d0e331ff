"""`poolwise profile`: what replicas were measured to do."""

import typer

from planner.service.cli import (
    profile_check,
    profile_compare,
    profile_export,
    profile_import,
    profile_link,
    profile_perturb,
    profile_run,
    profile_show,
)

app = typer.Typer(no_args_is_help=True, help="Measure engines and look at what was measured.")

app.command(epilog=profile_run.EPILOG)(profile_run.run)
app.command("import", epilog=profile_import.EPILOG)(profile_import.import_)
app.command(epilog=profile_show.EPILOG)(profile_show.show)
app.command(epilog=profile_compare.EPILOG)(profile_compare.compare)
app.command(epilog=profile_check.EPILOG)(profile_check.check)
app.command(epilog=profile_perturb.EPILOG)(profile_perturb.perturb)
app.command(epilog=profile_export.EPILOG)(profile_export.export)
app.command(epilog=profile_link.EPILOG)(profile_link.link)
