"""The report on too little: why nothing can be recommended, and what the spec says by itself."""

from datetime import datetime

from planner.domain.errors import TooLittleError
from planner.domain.hardware import Accelerator, PurchaseOption
from planner.domain.spec import Spec
from planner.service.answers.capacity.doubts import profile_documents
from planner.service.documents.unanswered_report import (
    PromiseDocument,
    StockDocument,
    UnansweredReport,
)


def unanswered_report(
    spec: Spec, why: TooLittleError, *, model: str, now: datetime
) -> UnansweredReport:
    """What can be said of a model whose traffic nobody saw; no fleet is guessed."""
    return UnansweredReport(
        deployment=spec.name,
        model=model,
        made_at=now,
        source=why.where,
        requests=why.requests,
        missing=why.what,
        remedy=why.remedy,
        window_s=spec.forecast.window_s,
        horizon_windows=spec.forecast.horizon_windows,
        promises=[
            PromiseDocument(
                request_class=slo.request_class,
                ttft_s=slo.ttft_s,
                tpot_s=slo.tpot_s,
                attainment_ratio=slo.attainment_ratio,
            )
            for slo in spec.slos
            if slo.model == model
        ],
        inventory=[_stock(accelerator) for accelerator in spec.accelerators],
        pools=[bounds.shape.label for bounds in spec.pools if bounds.shape.model == model],
        profiles=profile_documents(spec, model),
    )


def _stock(accelerator: Accelerator) -> StockDocument:
    prices = {offer.purchase_option: offer.usd_per_gpu_hour for offer in accelerator.offers}
    return StockDocument(
        accelerator=accelerator.name,
        inventory=accelerator.inventory,
        on_demand_usd_per_hour=prices.get(PurchaseOption.ON_DEMAND),
        reserved_usd_per_hour=prices.get(PurchaseOption.RESERVED),
        spot_usd_per_hour=prices.get(PurchaseOption.SPOT),
    )
