"""What autoscaling policies would have come to on a trace: run in the twin, judged alike.

`pair` says what is steered, `rules` holds the simplest policies, `foresight` schedules made with
the trace known, `running` runs a policy in the twin and `judging` counts what became of the
requests and what was paid. Poolwise's own policy needs forecasts and is put together outside the
core (`planner.service.answers.autoscaling`).
"""

from planner.autoscale.backtest.foresight import (
    MINUTE_S,
    Foresight,
    Schedule,
    first_fleet,
    frontier,
    loads,
    schedule,
)
from planner.autoscale.backtest.judging import Figures, attainable, figures, hours
from planner.autoscale.backtest.pair import ROLES, PoolPair
from planner.autoscale.backtest.rules import (
    TICK_S,
    LastValue,
    Lengths,
    Rates,
    Static,
    Ticking,
    rates,
)
from planner.autoscale.backtest.running import Run, Watched, replay

__all__ = [
    "Figures",
    "Foresight",
    "LastValue",
    "Lengths",
    "MINUTE_S",
    "PoolPair",
    "ROLES",
    "Rates",
    "Run",
    "Schedule",
    "Static",
    "TICK_S",
    "Ticking",
    "Watched",
    "attainable",
    "figures",
    "first_fleet",
    "frontier",
    "hours",
    "loads",
    "rates",
    "replay",
    "schedule",
]
