"""A plan together with what it changes: what `poolwise plan --json` prints."""

from collections.abc import Sequence

from pydantic import Field

from planner.domain.plan import Plan
from planner.domain.plan_difference import difference
from planner.domain.rollout import Diff, GuardFinding
from planner.optimize import ParetoPoint
from planner.service.documents.document import Document
from planner.service.documents.placement import PlacementDocument, placement_document
from planner.service.documents.plan import PlanDocument, plan_document
from planner.service.documents.rollout import (
    DiffDocument,
    FindingDocument,
    diff_document,
    finding_documents,
)

Beside = tuple[str, Plan | str]
"""What was asked to change, and the plan of it, or why there is none."""


class WhatIfDocument(Document):
    """A plan of a changed spec."""

    change: str = Field(description="as it was asked for")
    more_usd_per_hour: float | None = Field(
        description="the fleet's bill beyond the plan's, USD/h; below 0 it is cheaper; null: there "
        "is no plan to compare, as one was refused or no fleet keeps its promises"
    )
    more_unserved_usd_per_hour: float | None = Field(
        default=None,
        description="the price of what is left unserved beyond the plan's, USD/h; null likewise",
    )
    more_in_all_usd_per_hour: float | None = Field(
        default=None,
        description="every term of the objective in USD beyond the plan's, USD/h: bill, unserved, "
        "starts, switching, spot risk; null likewise",
    )
    more: float | None = Field(
        default=None,
        description="of what was to be best, in `unit`; null likewise, and where the change has "
        "another objective",
    )
    unit: str = Field(
        default="USD/h", description="USD/h (of all terms), W, accelerators or requests/s in time"
    )
    refused: str = Field(default="", description="why it could not be planned; empty: it was")
    plan: PlanDocument | None = Field(description="null: refused")


class ParetoDocument(Document):
    """A promise and the cheapest fleet that was proven to keep it."""

    ttft_s: float
    attainment_ratio: float
    efficient: bool = Field(description="nothing cheaper promises as much")
    refused: str = Field(default="", description="why it could not be planned; empty: it was")
    plan: PlanDocument | None = Field(description="null: refused")


class PlanAnswer(PlanDocument):
    """A plan, and what it changes where a fleet was given."""

    diff: DiffDocument | None = Field(description="null: no fleet was given")
    findings: list[FindingDocument] = Field(description="what the guards say of the diff")
    what_if: list[WhatIfDocument] = Field(default_factory=list, description="where asked for")
    pareto: list[ParetoDocument] = Field(default_factory=list, description="where asked for")


class RefusedAnswer(Document):
    """Why there is no plan, and the plans that it was to be compared with."""

    refused: str = Field(description="why the spec as it is could not be planned")
    what_if: list[WhatIfDocument]
    pareto: list[ParetoDocument] = Field(default_factory=list, description="where asked for")


class DiffAnswer(DiffDocument):
    """A diff, and where the replicas stand that it leads to."""

    placement: PlacementDocument = Field(description="of the plan's first window")


class PlansAnswer(Document):
    """Plans of several models that share an inventory."""

    plans: list[PlanDocument]


def diff_answer(diff: Diff, plan: Plan) -> DiffDocument:
    """A diff to a plan; with its cells where there are some."""
    document = diff_document(diff)
    if not plan.placements:
        return document
    placement = placement_document(plan.placements[0])
    return DiffAnswer(**dict(document), placement=placement)


def plans_answer(plans: Sequence[Plan]) -> PlansAnswer:
    """Plans that were made together."""
    return PlansAnswer(plans=[plan_document(plan) for plan in plans])


def plan_answer(
    plan: Plan,
    diff: Diff | None,
    findings: Sequence[GuardFinding],
    *,
    what_if: Sequence[Beside] = (),
    pareto: Sequence[ParetoPoint] = (),
) -> PlanAnswer:
    """A plan that was not stored, with the plans that it was compared with."""
    return PlanAnswer(
        **dict(plan_document(plan)),
        diff=None if diff is None else diff_document(diff),
        findings=finding_documents(findings),
        what_if=[_what_if_document(text, other, plan) for text, other in what_if],
        pareto=_pareto_documents(pareto),
    )


def refused_answer(
    refused: str, *, what_if: Sequence[Beside], pareto: Sequence[ParetoPoint] = ()
) -> RefusedAnswer:
    """The plans of changed specs where the spec as it is cannot be planned."""
    return RefusedAnswer(
        refused=refused,
        what_if=[_what_if_document(text, other, None) for text, other in what_if],
        pareto=_pareto_documents(pareto),
    )


def _pareto_documents(points: Sequence[ParetoPoint]) -> list[ParetoDocument]:
    return [
        ParetoDocument(
            ttft_s=point.ttft_s,
            attainment_ratio=point.attainment_ratio,
            efficient=point.efficient,
            refused=point.refused,
            plan=None if point.plan is None else plan_document(point.plan),
        )
        for point in points
    ]


def _what_if_document(text: str, other: Plan | str, plan: Plan | None) -> WhatIfDocument:
    if isinstance(other, str):
        return WhatIfDocument(change=text, more_usd_per_hour=None, refused=other, plan=None)
    more = None if plan is None else difference(plan, other)
    if more is None:
        return WhatIfDocument(change=text, more_usd_per_hour=None, plan=plan_document(other))
    return WhatIfDocument(
        change=text,
        more_usd_per_hour=more.fleet_usd_per_hour,
        more_unserved_usd_per_hour=more.unserved_usd_per_hour,
        more_in_all_usd_per_hour=more.in_all_usd_per_hour,
        more=more.more,
        unit=more.unit,
        plan=plan_document(other),
    )
