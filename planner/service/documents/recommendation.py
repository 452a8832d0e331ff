"""What `recommend` answers: replicas per pool for the next window, with reasons."""

from collections.abc import Sequence

from pydantic import Field

from planner.autoscale.slow import Decision
from planner.domain.forecast import Forecast
from planner.domain.hardware import PurchaseOption
from planner.domain.plan import PlanStatus
from planner.service.documents.document import Document
from planner.service.documents.forecast import ForecastDocument, forecast_document
from planner.service.documents.replica_shape import ReplicaFields
from planner.service.documents.rollout import FindingDocument, finding_documents


class RecommendedPoolDocument(ReplicaFields):
    """Replicas of one pool for the next window, and why."""

    model: str
    purchase_option: PurchaseOption
    replicas: int = Field(description="recommended")
    replicas_now: int = Field(description="ready and starting in the fleet that was handed in")
    reason: str


class RecommendationDocument(Document):
    """Replicas per pool with reasons, and the forecast behind them."""

    pools: list[RecommendedPoolDocument]
    forecast: ForecastDocument
    plan_id: str
    status: PlanStatus
    usd_per_hour: float
    estimated: bool = Field(description="true: rests on an estimated profile")
    incomplete: bool = Field(description="true: rests on a profile whose measuring broke off")
    relaxations: list[str] = Field(description="for an infeasible plan: what to relax")
    unproven: list[str] = Field(
        default_factory=list, description="what the twin did not confirm, of a plan that serves"
    )
    findings: list[FindingDocument] = Field(description="what the guards say of the change")


def recommendation_document(
    decision: Decision, forecast: Forecast, *, notes: Sequence[str] = ()
) -> RecommendationDocument:
    """The document of a decision, its forecast and what should be known of the history."""
    return RecommendationDocument(
        pools=_pools(decision),
        forecast=forecast_document(forecast, notes=notes),
        plan_id=decision.plan.plan_id,
        status=decision.plan.status,
        usd_per_hour=decision.plan.usd_per_hour,
        estimated=decision.plan.estimated,
        incomplete=decision.plan.incomplete,
        relaxations=list(decision.plan.relaxations),
        unproven=list(decision.plan.unproven),
        findings=finding_documents(decision.findings),
    )


def _pools(decision: Decision) -> list[RecommendedPoolDocument]:
    return [
        RecommendedPoolDocument(
            **dict(ReplicaFields.of(pool.shape)),
            model=pool.shape.model,
            purchase_option=pool.purchase_option,
            replicas=pool.replicas,
            replicas_now=pool.replicas_now,
            reason=pool.reason,
        )
        for pool in decision.recommendations
    ]
