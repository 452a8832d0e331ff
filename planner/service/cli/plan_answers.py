"""What is shown of a server's plans; imported where they are shown, as it needs pydantic."""

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """What is shown of a server's answer; a newer server may say more."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ApprovalAnswer(Part):
    """Where a plan stands."""

    state: str
    changed_at: str
    changed_by: str
    reason: str = ""
    approvers: list[str] = Field(default_factory=list)
    needed: int = 1


class ShapeAnswer(Part):
    """A kind of replica."""

    role: str
    accelerator: str
    tp: int = 1

    @property
    def label(self) -> str:
        """As in `decode:h100:tp1`."""
        return f"{self.role}:{self.accelerator}:tp{self.tp}"


class StepAnswer(Part):
    """One step of a diff."""

    index: int
    kind: str
    shape: ShapeAnswer
    to_shape: ShapeAnswer | None = None
    reason: str = ""


class DiffAnswer(Part):
    """What a plan changes."""

    steps: list[StepAnswer] = Field(default_factory=list)


class FindingAnswer(Part):
    """What a guard says."""

    guard: str
    verdict: str
    reason: str


class PlanAnswer(Part):
    """A stored plan."""

    plan_id: str
    deployment: str
    created_at: str
    status: str
    usd_per_hour: float
    approval: ApprovalAnswer
    diff: DiffAnswer = Field(default_factory=DiffAnswer)
    findings: list[FindingAnswer] = Field(default_factory=list)
