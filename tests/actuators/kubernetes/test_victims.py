"""The mark of the pod that leaves: it goes with the pod, or is taken back."""

import pytest

from actuators.actuator import carry_out
from actuators.kubernetes.victims import COST
from planner.domain.errors import ApplyError
from planner.domain.rollout import StepKind
from tests.actuators.kubernetes.rig import DECODE, grown, rigged

DRAIN = ((StepKind.DRAIN, DECODE),)


def costs(rig):
    """What pods of the decode pool cost that do not leave."""
    pods = rig.cluster.objects("pods", "default")
    return sorted(
        pod["metadata"].get("annotations", {}).get(COST, "")
        for pod in pods
        if pod["metadata"]["name"].startswith("decode")
        and "deletionTimestamp" not in pod["metadata"]
    )


def failing(rig, **how):
    rig.cluster.fault(
        verb="patch", resource="deployments", subresource="scale", dry_run=False, **how
    )
    actuator = rig.actuator()
    diff = grown(actuator, *DRAIN)
    with pytest.raises(ApplyError) as caught:
        carry_out(actuator, diff)
    return str(caught.value)


@pytest.mark.parametrize("status", [403, 404, 422, 500])
def test_the_mark_is_taken_back_where_the_count_is_not_written(status):
    with rigged(decode=3) as rig:
        assert str(status) in failing(rig, status=status)
        assert costs(rig) == ["", "", ""]
        assert rig.replicas("decode") == 3


def test_what_somebody_else_said_a_pod_costs_is_as_it_was():
    with rigged(decode=3) as rig:
        for pod in rig.cluster.objects("pods", "default"):
            pod["metadata"]["annotations"] = {COST: "7"}
            rig.cluster.update(pod)
        failing(rig, status=500)
        assert costs(rig) == ["7", "7", "7"]


def test_it_is_taken_back_where_the_connection_broke_before_the_write():
    with rigged(decode=3) as rig:
        failing(rig, cut=True, moment="before")
        assert costs(rig) == ["", "", ""]


def test_a_mark_of_which_nobody_knows_whether_it_landed_is_taken_back():
    with rigged(decode=3) as rig:
        rig.cluster.fault(verb="patch", resource="pods", cut=True, moment="after")
        actuator = rig.actuator()
        with pytest.raises(ApplyError, match="mark pod decode-"):
            carry_out(actuator, grown(actuator, *DRAIN))
        assert (rig.replicas("decode"), costs(rig)) == (3, ["", "", ""])


def test_it_stays_where_the_write_landed_though_nobody_heard_of_it():
    with rigged(decode=3) as rig:
        failing(rig, cut=True, moment="after")
        assert (rig.replicas("decode"), costs(rig)) == (2, ["", "", "-1000"])
        rig.simulation.step(60.0)
        assert costs(rig) == ["", ""]


def test_a_mark_that_cannot_be_taken_back_is_told():
    with rigged(decode=3) as rig:
        rig.cluster.fault(verb="patch", resource="pods", nth=2, status=500)
        said = failing(rig, status=422)
        assert "could not take back the mark of pod decode-" in said
        assert f"its annotation {COST} is to be removed" in said


def test_a_mark_of_a_process_that_was_killed_is_used_by_the_next_one():
    """Else two pods are marked, and the one that serves nobody may be the one that stays."""
    with rigged(decode=3) as rig:

        class KilledError(BaseException):
            pass

        actuator = rig.actuator()
        tries = []

        def killed():
            tries.append(1)
            if len(tries) > 1:  # once before the mark, once before the count
                raise KilledError

        actuator.before_write = killed
        with pytest.raises(KilledError):
            carry_out(actuator, grown(actuator, *DRAIN))
        assert costs(rig) == ["", "", "-1000"]
        again = rig.actuator()
        carry_out(again, grown(again, *DRAIN))
        rig.simulation.step(60.0)
        assert costs(rig) == ["", ""]


def test_two_that_leave_together_are_two():
    with rigged(decode=3) as rig:
        actuator = rig.actuator()
        for step in grown(actuator, *DRAIN, *DRAIN).steps:
            actuator.apply(step)
        assert costs(rig) == ["", "-1000", "-1000"]
