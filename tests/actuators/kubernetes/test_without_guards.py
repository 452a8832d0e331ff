"""What happens on a cluster without a guard: the same situations, the guard taken away."""

from dataclasses import dataclass

import pytest

from actuators.actuator import carry_out
from actuators.kubernetes.actuator import KubernetesActuator
from planner.domain.errors import ApplyError
from planner.domain.fleet import Fleet
from planner.domain.rollout import Diff, Step, StepKind
from tests.actuators.kubernetes.rig import DECODE, PREFILL, grown, rigged

BOTH = (
    (StepKind.START, PREFILL),
    (StepKind.ROUTE, PREFILL),
    (StepKind.START, DECODE),
    (StepKind.ROUTE, DECODE),
)


@dataclass(frozen=True)
class Careless:
    """An actuator without preflight, or without looking whether a step had an effect."""

    actuator: KubernetesActuator
    looks_before: bool = True
    looks_after: bool = True

    def read_fleet(self) -> Fleet:
        return self.actuator.read_fleet()

    def preflight(self, diff: Diff) -> tuple[str, ...]:
        return self.actuator.preflight(diff) if self.looks_before else ()

    def apply(self, step: Step) -> None:
        self.actuator.apply(step)

    def await_ready(self, step: Step) -> None:
        if self.looks_after:
            self.actuator.await_ready(step)


def test_without_a_preflight_the_first_target_is_written_before_the_second_is_found_invalid():
    with rigged() as rig:
        actuator = Careless(rig.actuator(), looks_before=False)
        diff = grown(actuator.actuator, *BOTH)
        rig.cluster.webhook("limits", lambda r: "at most 2" if "decode" in str(r) else None)
        with pytest.raises(ApplyError, match=r"failed at step 3 of 4.*at most 2"):
            carry_out(actuator, diff)
        assert rig.replicas("prefill") == 2  # half a change


def test_without_a_look_at_what_came_success_is_told_for_a_pod_that_never_does():
    with rigged() as rig:
        actuator = Careless(rig.actuator(), looks_after=False)
        diff = grown(actuator.actuator, *BOTH)
        rig.simulation.stuck = lambda pod: pod["metadata"]["labels"]["app"] == "prefill"
        assert len(carry_out(actuator, diff)) == 4
        rig.simulation.step(600.0)
        pools = {pool.shape: pool for pool in rig.actuator().read_fleet().pools}
        assert (pools[PREFILL].ready, pools[PREFILL].starting) == (0, 2)


def test_without_planning_again_a_step_that_landed_is_taken_twice():
    with rigged(prefill=1) as rig:
        actuator = rig.actuator()
        diff = grown(actuator, (StepKind.START, PREFILL))
        rig.cluster.fault(
            verb="patch", resource="deployments", dry_run=False, cut=True, moment="after"
        )
        with pytest.raises(ApplyError, match="it is not known whether that happened"):
            carry_out(actuator, diff)
        again = rig.actuator()
        carry_out(again, Diff(plan_id="p", from_fleet=again.read_fleet(), steps=diff.steps))
        assert rig.replicas("prefill") == 3  # two were wanted
