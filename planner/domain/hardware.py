"""Accelerators, what they cost, and how many may be had."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
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


class LinkKind(StrEnum):
    """What joins the accelerators of one node."""

    NVLINK = "nvlink"
    INFINITY_FABRIC = "infinity_fabric"
    PCIE = "pcie"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPrice:
    """What a provider listed on a day for one accelerator; not what anyone pays.

    Parameters
    ----------
    usd_per_gpu_hour : float
    provider, product : str
        Who listed it, under which name.
    listed_on : date
    source : str
        The page.
    """

    usd_per_gpu_hour: float
    purchase_option: PurchaseOption
    provider: str
    product: str
    listed_on: date
    source: str

    def __post_init__(self) -> None:
        if not 0 < self.usd_per_gpu_hour < math.inf:
            raise ValueError(f"usd_per_gpu_hour must be above 0, got {self.usd_per_gpu_hour:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorFacts:
    """What a vendor says of one accelerator, and what it was listed for. None: not known.

    Parameters
    ----------
    name : str
        As in specs and profiles, lower case.
    aliases : tuple of str
        Other names, lower case.
    memory_bytes : float
    memory_bandwidth_bytes_per_s : float or None
    bf16_flop_per_s, fp8_flop_per_s : float or None
        Dense, without sparsity.
    link_bandwidth_bytes_per_s : float or None
        To the others of its node, one direction.
    power_w : float or None
        At the most (thermal design power).
    accelerators_per_node : int or None
    source : str
        Where the figures were read.
    """

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    memory_bytes: float
    memory_bandwidth_bytes_per_s: float | None = None
    bf16_flop_per_s: float | None = None
    fp8_flop_per_s: float | None = None
    link: LinkKind | None = None
    link_bandwidth_bytes_per_s: float | None = None
    power_w: float | None = None
    accelerators_per_node: int | None = None
    source: str
    prices: tuple[ListPrice, ...] = ()

    def typical_price(
        self, purchase_option: PurchaseOption = PurchaseOption.ON_DEMAND
    ) -> ListPrice | None:
        """The middle one of the listed prices (of two the lower), or None without any."""
        listed = [p for p in self.prices if p.purchase_option is purchase_option]
        listed.sort(key=lambda price: price.usd_per_gpu_hour)
        return listed[(len(listed) - 1) // 2] if listed else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Accelerators whose figures are known.

    Parameters
    ----------
    entries : tuple of AcceleratorFacts
        Names and aliases are given once each.
    """

    entries: tuple[AcceleratorFacts, ...]

    def find(self, accelerator: str) -> AcceleratorFacts | None:
        """The entry of a name, by the words in it: that which shares the most, or None.

        `NVIDIA-H100-PCIe` is `h100-pcie`, `H100-SXM5-80GB` is `h100`.
        """
        entries = {name: e for e in self.entries for name in (e.name, *e.aliases)}
        name = closest(accelerator, entries)
        return None if name is None else entries[name]


def closest(accelerator: str, names: Iterable[str]) -> str | None:
    """Of these names the one that shares the most words with it and has no other, or None."""
    words = set(_words(accelerator))
    best: tuple[int, str | None] = (0, None)
    for name in names:
        own = _words(name)
        if words.issuperset(own) and len(own) > best[0]:
            best = (len(own), name)
    return best[1]


def _words(name: str) -> list[str]:
    return name.lower().replace("_", "-").replace(" ", "-").replace("/", "-").split("-")


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
    facts : AcceleratorFacts or None
        What the catalogue says of it: what estimates are made from. Never its price.
    """

    name: str
    per_node: int
    inventory: int
    offers: tuple[Offer, ...]
    memory_bytes: float | None = None
    power_w: float | None = None
    facts: AcceleratorFacts | None = None

    def __post_init__(self) -> None:
        if self.per_node < 1:
            raise ValueError(f"per_node of {self.name} must be at least 1, got {self.per_node}")
        if self.inventory < 0:
            raise ValueError(f"inventory of {self.name} must be at least 0, got {self.inventory}")
        if not self.offers:
            raise ValueError(f"accelerator {self.name} has no price: give usd_per_gpu_hour")

    @property
    def available(self) -> int:
        """How many may run: of one that is only reserved no more than the reservation."""
        counts = [offer.reserved_count for offer in self.offers]
        if None in counts:
            return self.inventory
        return min(self.inventory, sum(n for n in counts if n is not None))

    @property
    def reserved_usd_per_hour(self) -> float:
        """Price of one that is paid whether used or not, USD/h; 0: there are none."""
        return sum(offer.usd_per_gpu_hour for offer in self.offers if offer.is_prepaid)

    def offer(self, purchase_option: PurchaseOption) -> Offer | None:
        """The offer under this purchase option, or None when it is not sold that way."""
        return next((o for o in self.offers if o.purchase_option == purchase_option), None)
