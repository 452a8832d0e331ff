"""The digital twin: an event-driven replay of a deployment under a workload."""

from planner.simulate.result import QueueSeries, SimulationResult
from planner.simulate.sample import sample_workload
from planner.simulate.scenario import ReplicaGroup, RouterPolicy, Scenario
from planner.simulate.twin import simulate

__all__ = [
    "QueueSeries",
    "ReplicaGroup",
    "RouterPolicy",
    "Scenario",
    "SimulationResult",
    "sample_workload",
    "simulate",
]
