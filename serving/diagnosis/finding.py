"""The answer of a diagnosis: what is short, on which evidence, and how sure that is."""

from dataclasses import dataclass
from enum import StrEnum

from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck


class Confidence(StrEnum):
    """How sure a finding is.

    high: measured against a known limit or objective, and nothing else comes near. medium: a
    limit was inferred, or another shortage holds up at least half as many requests. low: little
    traffic, or parts that did not answer.
    """

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Unit(StrEnum):
    """What a figure counts."""

    RATIO = "ratio"
    SECONDS = "s"
    REQUESTS = "requests"
    TOKENS = "tokens"
    TOKENS_PER_S = "tokens/s"
    BYTES_PER_S = "bytes/s"
    PER_S = "1/s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One figure.

    Parameters
    ----------
    what : str
        What was measured, for people.
    value : float
        In `unit`.
    against : str
        What it is compared with; empty: with nothing.
    bound : float or None
        That value, in the same unit.
    """

    what: str
    value: float
    unit: Unit
    against: str = ""
    bound: float | None = None

    @property
    def text(self) -> str:
        """As a sentence's part."""
        said = f"{self.what}: {_figure(self.value, self.unit)}"
        if self.bound is None:
            return said
        return f"{said}, against {_figure(self.bound, self.unit)} {self.against}"


def _figure(value: float, unit: Unit) -> str:
    if unit is Unit.RATIO:
        return f"{value:.0%}"
    if unit is Unit.SECONDS:
        return f"{value * 1000:,.1f} ms" if value < 1 else f"{value:,.2f} s"
    if unit is Unit.BYTES_PER_S:
        return f"{value / 1e6:,.1f} MB/s"
    digits = 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f} {unit}".replace(" 1/s", "/s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """One possible shortage, judged.

    Parameters
    ----------
    role : Role or None
        Whose; None: the way between workers, or what stands before them.
    pressure_ratio : float
        How much of it is used; from 1 on requests are held up by it.
    is_short : bool
        Whether requests are held up by it.
    held_up_requests : float
        How many were, in the mean over the interval: by Little's law the rate of requests times
        the time that each loses.
    inferred : bool
        Whether a limit was inferred from what was seen.
    action : str
        What to do about it.
    because : str
        What happens, where it is not what this bottleneck usually means.
    """

    bottleneck: Bottleneck
    role: Role | None
    pressure_ratio: float
    is_short: bool
    held_up_requests: float
    evidence: tuple[Evidence, ...]
    action: str
    inferred: bool = False
    because: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unjudged:
    """A shortage that these measurements do not tell, and what would."""

    bottleneck: Bottleneck
    role: Role | None
    reason: str


Judgement = Suspicion | Unjudged


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The answer.

    Parameters
    ----------
    bottleneck : Bottleneck or None
        `none`: nothing is short. None: it cannot be told from telemetry.
    role : Role or None
        Of the workers that are short.
    confidence : Confidence
    summary : str
        One sentence.
    evidence : tuple of Evidence
    action : str
        What to do: about the shortage, or to find it.
    others : tuple of Suspicion
        What else was judged, most requests held up first.
    unjudged : tuple of Unjudged
    remarks : tuple of str
        What whoever relies on it should know.
    """

    bottleneck: Bottleneck | None
    role: Role | None
    confidence: Confidence
    summary: str
    evidence: tuple[Evidence, ...]
    action: str
    others: tuple[Suspicion, ...] = ()
    unjudged: tuple[Unjudged, ...] = ()
    remarks: tuple[str, ...] = ()
