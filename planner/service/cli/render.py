"""`poolwise render`: manifests of autoscalers that follow the exported counts."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import InputError
from planner.service.cli.catalogue_option import known_accelerators
from planner.service.cli.options import EstimatesOption, ModelOption, SpecOption

if TYPE_CHECKING:
    from actuators.autoscaler_manifests import Json, Scaled

app = typer.Typer(
    no_args_is_help=True,
    help="Write manifests of autoscalers that follow `poolwise_desired_replicas`.",
)
TargetsOption = Annotated[
    Path, typer.Option("--targets", help="Which object counts which pool (YAML).", metavar="FILE")
]


@app.command()
def hpa(
    *,
    spec: SpecOption,
    targets: TargetsOption,
    model: ModelOption = None,
    allow_estimates: EstimatesOption = False,
) -> None:
    """Write a HorizontalPodAutoscaler v2 for each target; bounds come from the spec's pools."""
    from actuators import autoscaler_manifests as manifests

    _write(_scaled(spec, targets, model, allow_estimates), manifests.hpa)


@app.command()
def keda(
    *,
    spec: SpecOption,
    targets: TargetsOption,
    prometheus: Annotated[
        str | None, typer.Option("--prometheus", help="Its URL, for KEDA.", metavar="URL")
    ] = None,
    scaler: Annotated[
        str | None,
        typer.Option("--scaler", help="`poolwise-scaler:9090`: push instead.", metavar="ADDRESS"),
    ] = None,
    model: ModelOption = None,
    allow_estimates: EstimatesOption = False,
) -> None:
    """Write a KEDA ScaledObject for each target, with Prometheus or an external scaler."""
    from actuators import autoscaler_manifests as manifests

    if (prometheus is None) == (scaler is None):
        raise InputError("give --prometheus URL or --scaler ADDRESS, one of them")
    scaled = _scaled(spec, targets, model, allow_estimates)
    if prometheus is not None:
        _write(scaled, lambda one: manifests.keda(one, prometheus=prometheus))
    else:
        _write(scaled, lambda one: manifests.keda_push(one, scaler=scaler or ""))


@app.command("prometheus-adapter")
def prometheus_adapter() -> None:
    """Write the rule with which prometheus-adapter serves the metric to HPAs."""
    import yaml

    from actuators.autoscaler_manifests import adapter_rule

    typer.echo(yaml.safe_dump(adapter_rule(), sort_keys=False), nl=False)


def _scaled(spec: Path, targets: Path, model: str | None, allow_estimates: bool) -> "list[Scaled]":
    from actuators.autoscaler_manifests import Scaled, labels_of
    from actuators.dry_run import read_targets
    from planner.service.planning import sole_model
    from planner.service.spec_file import read_spec

    checked = read_spec(spec, allow_estimates=allow_estimates, catalogue=known_accelerators())
    name = sole_model(checked, model)
    found = []
    for target in read_targets(targets):
        bounds = [b for b in checked.pools if target.is_for(b.shape)]
        if len(bounds) != 1 or bounds[0].max_replicas is None:
            raise InputError(
                f"{target.label} matches {len(bounds)} pools of {spec}: it needs exactly one, "
                "with max_replicas, which bounds the autoscaler"
            )
        found.append(
            Scaled(
                deployment=checked.name,
                target=target,
                labels=labels_of(checked.name, target, name),
                min_replicas=bounds[0].min_replicas,
                max_replicas=bounds[0].max_replicas,
            )
        )
    return found


def _write(scaled: "list[Scaled]", manifest: "Callable[[Scaled], Json]") -> None:
    import yaml

    typer.echo(yaml.safe_dump_all([manifest(one) for one in scaled], sort_keys=False), nl=False)
