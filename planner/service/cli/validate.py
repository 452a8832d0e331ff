"""`poolwise validate`: check a spec and all that it names."""

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import ApplyError, InputError
from planner.service.cli import output
from planner.service.cli.catalogue_option import known_accelerators
from planner.service.cli.options import EstimatesOption, JsonOption

if TYPE_CHECKING:
    from planner.domain.spec import Spec
    from planner.service.fleet.kubernetes_target import Look

EPILOG = (
    "Examples:\n\n"
    "poolwise validate --spec spec.yaml\n\n"
    "poolwise validate --schema > poolwise.schema.json"
)


def validate(
    *,
    spec: Annotated[
        Path | None, typer.Option("--spec", "-s", help="The spec (YAML).", metavar="FILE")
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of the spec instead.")
    ] = False,
    allow_estimates: EstimatesOption = False,
    json: JsonOption = False,
) -> None:
    """Check a spec, its models' configs and its profiles. Starts and changes nothing.

    Every problem is reported with its line and what to do.
    """
    if schema:
        from planner.service.spec.document import spec_schema

        typer.echo(json_module.dumps(spec_schema(), indent=2))
        return
    if spec is None:
        raise InputError("give --spec FILE to check it, or --schema to see what it may hold")
    from planner.service.spec.file import has_estimates, read_spec

    checked = read_spec(spec, allow_estimates=allow_estimates, catalogue=known_accelerators())
    look = _in_the_cluster(checked)
    pools = look.pools if look else ()
    problems = [problem for pool in pools for problem in pool.problems]
    problems += look.problems if look else ()
    if json:
        facts = _facts(checked) | {"cluster": [asdict(pool) for pool in pools]}
        facts |= {"left_out": look.left_out, "problems": problems} if look else {}
        typer.echo(json_module.dumps(facts | {"valid": not problems}, indent=2))
        raise typer.Exit(1 if problems else 0)
    output.print_table(
        f"{spec} is valid: {checked.name}, target {checked.target} ({checked.spec_id})",
        ("pool", "model", "replicas", "profile", "kind", "error"),
        _pools(checked),
        numbers_from=9,
    )
    if has_estimates(checked):
        output.note("Some profiles are ESTIMATED: plans are rough and never applied by themselves.")
    broken = [profile.profile_id for profile in checked.profiles if profile.interrupted]
    if broken:
        output.note(
            f"INCOMPLETE profiles, as measuring broke off: {', '.join(broken)}; their notes say "
            "what is missing (`poolwise profile show`)."
        )
    if look:
        _show_cluster(look, problems)


def _in_the_cluster(spec: "Spec") -> "Look | None":
    """What a cluster says of the spec's pools; None for other targets."""
    from planner.domain.spec import TargetKind

    if spec.target is not TargetKind.KUBERNETES:
        return None
    from planner.service.fleet.kubernetes_target import look_at

    return look_at(spec)


def _show_cluster(look: "Look", problems: list[str]) -> None:
    """What the cluster has; raises what stands in the way, all of it."""
    found_by = any(f.found_by for f in look.pools)
    output.print_table(
        "In the cluster (nothing was changed; one more and one less were tried as a dry run)",
        ("pool", "count", *(["found by"] if found_by else []), "ready", "starting", "draining"),
        [
            [
                f.pool,
                f.count or "-",
                *([f.found_by] if found_by else []),
                *("-" if n is None else str(n) for n in (f.ready, f.starting, f.draining)),
            ]
            for f in look.pools
        ],
        numbers_from=3 if found_by else 2,
    )
    output.print_lines("Left out", look.left_out)
    output.print_lines("To know", [note for pool in look.pools for note in pool.notes])
    if problems:
        raise ApplyError("\n".join(dict.fromkeys(problems)))


def _pools(spec: "Spec") -> list[list[str]]:
    rows = []
    for pool in spec.pools:
        profile = spec.profile_of(pool.shape)
        most = "inventory" if pool.max_replicas is None else str(pool.max_replicas)
        rows.append(
            [
                pool.shape.label,
                pool.shape.model,
                f"{pool.min_replicas} to {most}",
                profile.profile_id if profile else "-",
                profile.provenance.kind.value if profile else "-",
                f"{profile.provenance.error_ratio:.0%}" if profile else "-",
            ]
        )
    return rows


def _facts(spec: "Spec") -> dict[str, object]:
    return {
        "valid": True,
        "spec_id": spec.spec_id,
        "name": spec.name,
        "target": spec.target.value,
        "models": [
            {
                "name": model.name,
                "parameters": model.parameters,
                "weight_bytes": model.weight_bytes,
                "kv_bytes_per_token": model.kv_bytes_per_token,
            }
            for model in spec.models
        ],
        "profiles": [
            {
                "profile_id": profile.profile_id,
                "model": profile.model,
                "accelerator": profile.accelerator,
                "tp": profile.tp,
                "pp": profile.pp,
                "weight_dtype": profile.weight_dtype,
                "kv_dtype": profile.kv_dtype,
                "roles": [role.value for role in profile.roles],
                "kind": profile.provenance.kind.value,
                "incomplete": profile.interrupted,
                "error_ratio": profile.provenance.error_ratio,
            }
            for profile in spec.profiles
        ],
    }
