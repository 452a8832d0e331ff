"""`poolwise trace`: what a trace is like, in other formats, and made from a description."""

import typer

from planner.service.cli import trace_convert, trace_show, trace_synthesize

app = typer.Typer(
    no_args_is_help=True,
    help="Show, convert and synthesize traces of requests.",
)
app.command(name="show", epilog=trace_show.EPILOG)(trace_show.show)
app.command(name="convert", epilog=trace_convert.EPILOG)(trace_convert.convert)
app.command(name="synthesize", epilog=trace_synthesize.EPILOG)(trace_synthesize.synthesize)
