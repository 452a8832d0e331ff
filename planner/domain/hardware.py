"""Accelerators, what they cost, and how many may be had."""

from dataclasses import dataclass
from enum import StrEnum


class PurchaseOption(StrEnum):
    """How an accelerator is paid for. Of reserved ones a stated number is paid, used or not."""

    RESERVED = "reserved"
    ON_DEMAND = "on_demand"
    SPOT = "spot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One way to buy an accelerator.

    Parameters
    ----------
    usd_per_gpu_hour : float
        Price of one accelerator for one hour, USD.
    interruptions_per_hour : float
        Expected reclaims of one spot accelerator; 0 for the others.
    billing_increment_s : float
        A start pays at least for so long, seconds; 0: to the second.
    reserved_count : int or None
        So many accelerators are reserved: they are paid whether used or not, and no more may be
        had this way. None: as many as the inventory has, paid while planned.
    """

    purchase_option: PurchaseOption
    usd_per_gpu_hour: float
    interruptions_per_hour: float = 0.0
    billing_increment_s: float = 0.0
    reserved_count: int | None = None

    def __post_init__(self) -> None:
        if not self.usd_per_gpu_hour >= 0:
            raise ValueError(f"usd_per_gpu_hour must be at least 0, got {self.usd_per_gpu_hour:g}")
        if self.reserved_count is not None:
            if self.purchase_option is not PurchaseOption.RESERVED:
                raise ValueError("reserved_count goes with the reserved price only")
            if self.reserved_count < 0:
                raise ValueError(f"reserved_count must be at least 0, got {self.reserved_count}")

    @property
    def is_prepaid(self) -> bool:
        """Whether a stated number is paid whether used or not."""
        return self.reserved_count is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """An accelerator type: a GPU model, or a CPU slot on machines without one.

    Parameters
    ----------
    per_node : int
        Accelerators in one node; a replica does not span nodes.
    inventory : int
        How many may be had in all.
    offers : tuple of Offer
        At least one.
    memory_bytes, power_w : float or None
        Of one accelerator, where known.
    """

    name: str
    per_node: int
    inventory: int
    offers: tuple[Offer, ...]
    memory_bytes: float | None = None
    power_w: float | None = None

    def __post_init__(self) -> None:
        if self.per_node < 1:
            raise ValueError(f"per_node of {self.name} must be at least 1, got {self.per_node}")
        if self.inventory < 0:
            raise ValueError(f"inventory of {self.name} must be at least 0, got {self.inventory}")
        if not self.offers:
            raise ValueError(f"accelerator {self.name} has no price: give usd_per_gpu_hour")

    @property
    def reserved_usd_per_hour(self) -> float:
        """Price of one that is paid whether used or not, USD/h; 0: there are none."""
        return sum(offer.usd_per_gpu_hour for offer in self.offers if offer.is_prepaid)

    def offer(self, purchase_option: PurchaseOption) -> Offer | None:
        """The offer under this purchase option, or None when it is not sold that way."""
        return next((o for o in self.offers if o.purchase_option == purchase_option), None)
