"""How far a profile is corrected by what its replicas are seen to do."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Leg(StrEnum):
    """Which times of a profile: those of prompts, or those of decode steps."""

    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSettings:
    """How capacity follows what is observed.

    Parameters
    ----------
    enabled : bool
        False: drift is told, and capacity stays as profiled.
    max_slower_ratio : float
        Times become at most so much longer than the profile's, ratio.
    max_faster_ratio : float
        Speed becomes at most so much more than the profile's, ratio; 0: never faster.
    tolerance_ratio : float
        A smaller shift is no drift, ratio.
    false_alarm_ticks : float
        Without drift, one false alarm in so many ticks on average.
    """

    enabled: bool = True
    max_slower_ratio: float = 0.5
    max_faster_ratio: float = 0.0
    tolerance_ratio: float = 0.1
    false_alarm_ticks: float = 10_000.0

    def __post_init__(self) -> None:
        for name in ("max_slower_ratio", "max_faster_ratio"):
            if not 0 <= getattr(self, name) <= 2:
                raise ValueError(f"{name} must lie between 0 and 2, got {getattr(self, name):g}")
        if not 0.01 <= self.tolerance_ratio <= 1:
            raise ValueError(
                f"tolerance_ratio must lie between 0.01 and 1, got {self.tolerance_ratio:g}"
            )
        if not 100 <= self.false_alarm_ticks <= 1e9:
            raise ValueError("false_alarm_ticks must lie between 100 and 1e9")

    @property
    def least_factor(self) -> float:
        """The shortest that times may become, as a multiple of the profile's."""
        return 1.0 / (1.0 + self.max_faster_ratio) if self.enabled else 1.0

    @property
    def most_factor(self) -> float:
        """The longest that times may become, as a multiple of the profile's."""
        return 1.0 + self.max_slower_ratio if self.enabled else 1.0

    def bounded(self, factor: float) -> float:
        """The factor, or the bound that it lies beyond."""
        return min(max(factor, self.least_factor), self.most_factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """One leg of a profile that is taken to last so many times as long as it says.

    Parameters
    ----------
    factor : float
        1: as profiled.
    since_at : datetime
        When it was changed last.
    ticks : int
        So many readings, one a tick, are behind it.
    at_bound : bool
        The observation asks for more than the settings allow.
    """

    profile_id: str
    leg: Leg
    factor: float
    since_at: datetime
    ticks: int
    at_bound: bool = False

    @property
    def sentence(self) -> str:
        """As in `decode steps are taken to last 1.2 times as long as profile p-1 says`."""
        what = "prompts" if self.leg is Leg.PREFILL else "decode steps"
        more = ", the most that calibration allows" if self.at_bound else ""
        return (
            f"{what} are taken to last {self.factor:.2f} times as long as profile "
            f"{self.profile_id} says{more} ({self.ticks} readings until "
            f"{self.since_at:%Y-%m-%d %H:%M} UTC): profile again"
        )
