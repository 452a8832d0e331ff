"""`poolwise render`: manifests of autoscalers that follow the exported counts."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import InputError
from planner.service.cli.catalogue_option import known_accelerators
from planner.service.cli.options import EstimatesOption, SpecOption

if TYPE_CHECKING:
    from actuators.autoscaler_manifests import Json, Scaled

app = typer.Typer(
    no_args_is_help=True,
    help="Write manifests of autoscalers that follow `poolwise_desired_replicas`.",
)


@app.command()
def hpa(
    *,
    spec: SpecOption,
    allow_estimates: EstimatesOption = False,
) -> None:
    """Write a HorizontalPodAutoscaler v2 for each object of the spec's target.

    Bounds are those of its pools.
    """
    from actuators import autoscaler_manifests as manifests

    _write(_scaled(spec, allow_estimates), manifests.hpa)


@app.command()
def keda(
    *,
    spec: SpecOption,
    prometheus: Annotated[
        str | None, typer.Option("--prometheus", help="Its URL, for KEDA.", metavar="URL")
    ] = None,
    scaler: Annotated[
        str | None,
        typer.Option("--scaler", help="`poolwise-scaler:9090`: push instead.", metavar="ADDRESS"),
    ] = None,
    allow_estimates: EstimatesOption = False,
) -> None:
    """Write a KEDA ScaledObject for each object of the spec's target.

    KEDA asks a Prometheus, or `poolwise serve --keda-port`.
    """
    from actuators import autoscaler_manifests as manifests

    if (prometheus is None) == (scaler is None):
        raise InputError("give --prometheus URL or --scaler ADDRESS, one of them")
    scaled = _scaled(spec, allow_estimates)
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


def _scaled(spec: Path, allow_estimates: bool) -> "list[Scaled]":
    from actuators.autoscaler_manifests import scaled_pools
    from planner.service.spec.file import read_spec

    checked = read_spec(spec, allow_estimates=allow_estimates, catalogue=known_accelerators())
    if not checked.cluster.objects:
        raise InputError(
            f"{spec} has no target.objects: name there which object holds the count of which pool"
        )
    return scaled_pools(checked.name, checked.pools, checked.cluster.located)


def _write(scaled: "list[Scaled]", manifest: "Callable[[Scaled], Json]") -> None:
    import yaml

    typer.echo(yaml.safe_dump_all([manifest(one) for one in scaled], sort_keys=False), nl=False)
