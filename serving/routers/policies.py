"""Which worker of a role the router chooses."""

from dataclasses import dataclass
from enum import StrEnum


class RouterPolicy(StrEnum):
    """Policies by smg's names."""

    CACHE_AWARE = "cache_aware"
    POWER_OF_TWO = "power_of_two"
    LEAST_LOAD = "least_load"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """A policy for each role; `poolwise kv` says which suits the traffic."""

    prefill: RouterPolicy = RouterPolicy.LEAST_LOAD
    decode: RouterPolicy = RouterPolicy.LEAST_LOAD

    @property
    def options(self) -> tuple[str, ...]:
        """As smg takes them."""
        return "--prefill-policy", self.prefill.value, "--decode-policy", self.decode.value


USUAL = Policies()
