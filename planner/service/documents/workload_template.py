"""Workloads that are described ready-made, for those who have no trace yet."""

from functools import cache
from importlib.resources import files

from planner.domain.errors import InputError
from planner.service.documents.trace_description import (
    TraceDescriptionDocument,
    parse_trace_description,
)
from planner.service.spec.problems import did_you_mean

TEMPLATES = (
    "legal-review",
    "support-chat",
    "coding-assistant",
    "enterprise-rag",
    "multi-agent",
)
"""Names, each a file of the folder `workload_templates`."""


def workload_template_text(name: str) -> str:
    """The YAML of a template, with its comments.

    Raises
    ------
    InputError
        When there is none of this name.
    """
    if name not in TEMPLATES:
        raise InputError(
            f"--template {name}: there is no such workload, only {', '.join(TEMPLATES)}"
            f"{did_you_mean(name, TEMPLATES)}"
        )
    folder = files("planner.service.documents") / "workload_templates"
    return (folder / f"{name}.yaml").read_text(encoding="utf-8")


@cache
def workload_template(name: str) -> TraceDescriptionDocument:
    """The description of a template. Raises InputError."""
    return parse_trace_description(workload_template_text(name), where=f"{name}.yaml")
