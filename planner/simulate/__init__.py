"""The digital twin: an event-driven replay of a deployment under a workload."""

from planner.domain.topology import Distance, LinkClass, Place, Topology
from planner.simulate.observe import GroupSeries
from planner.simulate.policy import Flip, GroupView, Observation, Policy, Targets
from planner.simulate.result import Outcome, SimulationResult, Stopped, pooled
from planner.simulate.routes import Route
from planner.simulate.sample import sample_workload
from planner.simulate.scenario import Event, Incident, ReplicaGroup, RouterPolicy, Scenario
from planner.simulate.twin import simulate

__all__ = [
    "Distance",
    "Event",
    "Flip",
    "GroupSeries",
    "GroupView",
    "Incident",
    "LinkClass",
    "Observation",
    "Outcome",
    "Place",
    "Policy",
    "ReplicaGroup",
    "Route",
    "RouterPolicy",
    "Scenario",
    "SimulationResult",
    "Stopped",
    "Targets",
    "Topology",
    "pooled",
    "sample_workload",
    "simulate",
]
