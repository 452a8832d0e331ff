"""Rate limits: buckets that refill evenly and hold a few seconds' worth."""

from dataclasses import dataclass, field

BURST_S = 5.0
"""A client that was quiet may send so many seconds' worth at once."""


@dataclass(slots=True)
class Bucket:
    """What one client may still use.

    Parameters
    ----------
    per_s : float
        Refill, units a second.
    level : float
        Units there are at `at_s`; below 0 after something turned out larger than charged.
    """

    per_s: float
    at_s: float
    level: float = field(init=False)

    def __post_init__(self) -> None:
        self.level = self.most

    @property
    def most(self) -> float:
        """Units it holds; at least one, so that slow rates let single requests through."""
        return max(self.per_s * BURST_S, 1.0)

    def wait_s(self, amount: float, now_s: float) -> float:
        """Seconds until `amount` may be taken; 0: now. More than it holds waits until full."""
        self._refill(now_s)
        missing = min(amount, self.most) - self.level
        return max(missing, 0.0) / self.per_s

    def take(self, amount: float, now_s: float) -> None:
        """Take units, as they are known now; negative amounts give back."""
        self._refill(now_s)
        self.level = min(self.level - amount, self.most)

    def _refill(self, now_s: float) -> None:
        self.level = min(self.level + (now_s - self.at_s) * self.per_s, self.most)
        self.at_s = now_s
