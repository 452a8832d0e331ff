"""Show a diff without changing anything: as text, JSON, manifests or a patch for git."""

from actuators.dry_run.actuator import DryRunActuator
from actuators.dry_run.counts import TargetCount, planned_counts, target_counts
from actuators.dry_run.manifests import render_manifests
from actuators.dry_run.patch import render_patch
from actuators.dry_run.text import render_text

__all__ = [
    "DryRunActuator",
    "TargetCount",
    "planned_counts",
    "render_manifests",
    "render_patch",
    "render_text",
    "target_counts",
]
