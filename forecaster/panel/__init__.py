"""A panel of cheap forecasting methods that runs along a set of series, step by step.

`record` keeps what was observed, `smoothing`, `seasonal` and `regression` hold the methods,
`choice` says which of them to follow, `conformal` puts quantiles around that, and `panel` takes
one step of all of it. Nothing here ever sees a later step than the one it was given last, so a
forecast cannot know its future.
"""

from forecaster.panel.conformal import LEVELS
from forecaster.panel.panel import METHODS, MOST_STEPS, TREES, Outlook, Panel
from forecaster.panel.record import Span

__all__ = ["LEVELS", "METHODS", "MOST_STEPS", "TREES", "Outlook", "Panel", "Span"]
