"""Autoscaling policies over a trace: Poolwise's own, and what it is compared with."""

from planner.service.answers.autoscaling.comparison import Compared, Contender, compare
from planner.service.answers.autoscaling.own_policy import OwnPolicy

__all__ = ["Compared", "Contender", "OwnPolicy", "compare"]
