"""What autoscaling policies would have come to on a trace, as JSON."""

from collections.abc import Sequence

from pydantic import Field

from planner.service.answers.autoscaling import Compared
from planner.service.documents.document import Document


class ComparedPolicyDocument(Document):
    """What one policy came to."""

    policy: str = Field(description="poolwise, last_value, static or foresight")
    setting: str = Field(description="the first, from cheap to dear, that keeps the promise")
    promise_kept: bool = Field(description="by attainable_ratio")
    settings_tried: int = Field(description="count")
    requests: int = Field(description="that arrived after the warm-up, count")
    attainment_ratio: float = Field(description="of all requests, 0..1")
    attainable_ratio: float = Field(
        description="of those that would be in time alone on an idle fleet, 0..1"
    )
    accelerator_hours: float = Field(description="from ordering a replica until it is gone")
    usd: float = Field(description="at each pool's lowest price")
    hours_over_foresight_ratio: float | None = Field(
        description="null: foresight did not run, or did not keep the promise"
    )
    mean_decided_s: float = Field(description="processor seconds of a decision")
    most_decided_s: float = Field(description="processor seconds of the longest decision")


class AutoscalingBacktestDocument(Document):
    """Policies on one trace in the twin."""

    model: str
    promised_ratio: float = Field(description="share of requests that is promised, 0..1")
    warm_s: float = Field(description="seconds in which nothing is judged")
    policies: list[ComparedPolicyDocument]
    notes: list[str] = Field(description="what should be known of the comparison")


def autoscaling_document(
    compared: Sequence[Compared],
    *,
    model: str,
    promised_ratio: float,
    warm_s: float,
    notes: Sequence[str] = (),
) -> AutoscalingBacktestDocument:
    """The document of a comparison."""
    ahead = next(
        (c.figures.accelerator_hours for c in compared if c.contender == "foresight" and c.kept),
        None,
    )
    return AutoscalingBacktestDocument(
        model=model,
        promised_ratio=promised_ratio,
        warm_s=warm_s,
        policies=[_policy(one, ahead) for one in compared],
        notes=list(notes),
    )


def _policy(one: Compared, foresight_hours: float | None) -> ComparedPolicyDocument:
    seen = one.figures
    over = None if not foresight_hours else seen.accelerator_hours / foresight_hours
    return ComparedPolicyDocument(
        policy=one.contender.value,
        setting=one.setting,
        promise_kept=one.kept,
        settings_tried=one.tried,
        requests=seen.requests,
        attainment_ratio=seen.attainment_ratio,
        attainable_ratio=seen.attainable_ratio,
        accelerator_hours=seen.accelerator_hours,
        usd=one.usd,
        hours_over_foresight_ratio=over,
        mean_decided_s=seen.mean_decided_s,
        most_decided_s=seen.most_decided_s,
    )
