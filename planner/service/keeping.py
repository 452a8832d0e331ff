"""How long what is kept: a setting, and what `store.retention` goes by."""

from dataclasses import dataclass

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How long what is kept, seconds.

    Parameters
    ----------
    windows_s : float
        Observed windows as they came in; older ones become hours, but never those that a forecast
        still looks at.
    hours_s : float
        Hours of observed windows and of requests through a gate.
    decisions_s : float
        What ticks did.
    plans_s : float
        Plans that never moved the fleet and wait for nobody, and orders that were answered.
    rollouts_s : float
        Plans that did, with their states and steps.
    """

    windows_s: float = 7 * DAY_S
    hours_s: float = 400 * DAY_S
    decisions_s: float = 90 * DAY_S
    plans_s: float = 7 * DAY_S
    rollouts_s: float = 400 * DAY_S
