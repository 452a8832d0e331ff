"""What a shortage of accelerators does to the next plan. Pure."""

from dataclasses import dataclass, replace
from datetime import datetime

from planner.domain.errors import ApplyError
from planner.domain.spec import Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class StockOut:
    """An accelerator of which, until `until_at`, no more than `usable` could be had."""

    accelerator: str
    usable: int
    until_at: datetime


def with_usable_inventory(spec: Spec, stock_outs: tuple[StockOut, ...], *, now: datetime) -> Spec:
    """Give the spec with the inventory lowered to what can be had while a cool-down lasts."""
    lasting = [s for s in stock_outs if now < s.until_at]
    return replace(
        spec,
        accelerators=tuple(
            replace(
                a,
                inventory=min(
                    [a.inventory, *(s.usable for s in lasting if s.accelerator == a.name)]
                ),
            )
            for a in spec.accelerators
        ),
    )


class StockOutError(ApplyError):
    """Replicas found no accelerator before their deadline."""

    def __init__(self, message: str, stock_out: StockOut) -> None:
        super().__init__(message)
        self.stock_out = stock_out
