"""How long a step may take before it has failed."""

from planner.domain.guards import GuardSettings
from planner.domain.rollout import Step


def deadline_s(step: Step, settings: GuardSettings) -> float:
    """Seconds after which a step that shows no effect has failed."""
    return max(
        settings.progress_deadline_least_s, settings.progress_deadline_ratio * step.expected_s
    )
