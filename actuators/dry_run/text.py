"""A diff for people."""

from planner.domain.rollout import Diff


def render_text(diff: Diff) -> str:
    """Write a diff for people, one line a step."""
    if not diff.steps:
        return "nothing to change: the fleet is as planned"
    lines = []
    for step in diff.steps:
        to = f" -> {step.to_shape.label}" if step.to_shape else ""
        where = f" in {step.cell}" if step.cell else ""
        lines.append(
            f"{step.index + 1:>3}. {step.kind:<6} {step.shape.label}{to}{where}  "
            f"(about {step.expected_s:.0f} s)  {step.reason}"
        )
    return "\n".join(lines)
