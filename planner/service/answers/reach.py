"""How far ahead a history can be asked about."""

from collections.abc import Sequence
from datetime import datetime
from statistics import median_low

from planner.domain.errors import HistoryError
from planner.domain.spec import ForecastSettings
from planner.domain.workload import ObservedWindow

MOST_STEPS_AHEAD = 20_000
"""Two weeks of minutes; memory grows with the reach, and nothing is known that far."""


def check_reach(
    windows: Sequence[ObservedWindow], settings: ForecastSettings, *, made_at: datetime
) -> None:
    """Refuse a question about a time that a history of such windows cannot know.

    Raises
    ------
    HistoryError
        When the last forecast window ends too many steps after the history.
    """
    past = [window for window in windows if window.end_at <= made_at]
    if not past:
        return
    step_s = min(
        median_low([w.window_s for w in past if w.request_class == name])
        for name in {w.request_class for w in past}
    )
    ended_at = max(window.end_at for window in past)
    lead_s = (made_at - ended_at).total_seconds()
    ahead_s = lead_s + settings.window_s * settings.horizon_windows
    most_s = MOST_STEPS_AHEAD * step_s
    if ahead_s > most_s:
        raise HistoryError(
            f"the forecast would reach {ahead_s:,.0f} s beyond the history, which ends at "
            f"{ended_at.isoformat()}; windows of {step_s:g} s tell of {most_s:,.0f} "
            "s at the most: ask for fewer or shorter windows or an earlier instant, or give newer "
            "or longer windows"
        )
