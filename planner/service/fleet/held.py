"""Why steps are held back, in words."""

from collections.abc import Sequence

from planner import rollout
from planner.autoscale.slow import Decision
from planner.domain.rollout import GuardFinding, Verdict


def describe(finding: GuardFinding) -> str:
    """A finding as a clause."""
    return f"{finding.guard}: {finding.reason}"


def held_back(decision: Decision) -> str:
    """Why no step towards the plan may be taken now, though some are wanted; empty: some may."""
    if decision.diff.steps or not decision.recommended.steps:
        return ""
    clamps = [finding for finding in decision.findings if finding.verdict is Verdict.CLAMP]
    return "; ".join(describe(finding) for finding in clamps)


def forbidden(findings: Sequence[GuardFinding]) -> str:
    """Why a diff must not be applied by itself now, or an empty string."""
    if not rollout.refused(findings):
        return ""
    held = [f for f in findings if f.verdict in (Verdict.REFUSE, Verdict.DELAY)]
    return "; ".join(describe(finding) for finding in held)
