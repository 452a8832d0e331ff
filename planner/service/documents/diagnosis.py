"""What a running deployment is short of, as JSON."""

from typing import Self

from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck
from planner.service.documents.document import Document
from planner.service.documents.perturbation import PerturbationDocument
from planner.service.live.diagnosing import Diagnosed
from serving.diagnosis.finding import Confidence, Finding, Suspicion, Unit


class EvidenceDocument(Document):
    """One figure; `bound` is what it is compared with, in the same unit."""

    what: str
    value: float
    unit: Unit
    against: str
    bound: float | None
    text: str


class SuspicionDocument(Document):
    """One kind of shortage, judged; see `serving.diagnosis.finding.Suspicion`."""

    bottleneck: Bottleneck
    role: Role | None
    pressure_ratio: float
    is_short: bool
    held_up_requests: float
    evidence: list[EvidenceDocument]
    action: str
    inferred: bool

    @classmethod
    def of(cls, suspicion: Suspicion) -> Self:
        """The document of a judgement."""
        return cls.model_validate(suspicion, from_attributes=True)


class UnjudgedDocument(Document):
    """A kind of shortage that the measurements do not tell."""

    bottleneck: Bottleneck
    role: Role | None
    reason: str


class DiagnosisDocument(Document):
    """The finding. `bottleneck` null: it cannot be told from telemetry; `none`: nothing is short.

    `experiment` null: none was made; its own `bottleneck` is what added load showed.
    """

    bottleneck: Bottleneck | None
    role: Role | None
    confidence: Confidence
    summary: str
    evidence: list[EvidenceDocument]
    action: str
    others: list[SuspicionDocument]
    unjudged: list[UnjudgedDocument]
    remarks: list[str]
    experiment: PerturbationDocument | None

    @classmethod
    def of(cls, diagnosed: Diagnosed) -> Self:
        """The document of a diagnosis."""
        finding: Finding = diagnosed.finding
        responses = diagnosed.responses
        return cls(
            bottleneck=finding.bottleneck,
            role=finding.role,
            confidence=finding.confidence,
            summary=finding.summary,
            evidence=[
                EvidenceDocument.model_validate(e, from_attributes=True) for e in finding.evidence
            ],
            action=finding.action,
            others=[SuspicionDocument.of(s) for s in finding.others],
            unjudged=[
                UnjudgedDocument.model_validate(u, from_attributes=True) for u in finding.unjudged
            ],
            remarks=list(finding.remarks),
            experiment=None if responses is None else PerturbationDocument.of(responses),
        )
