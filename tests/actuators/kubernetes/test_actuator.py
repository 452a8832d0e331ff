"""Counts on a cluster follow a diff, and nothing moves that should not."""

import pytest

from actuators.actuator import carry_out
from actuators.kubernetes.stock_out import StockOutError, with_usable_inventory
from planner.domain.errors import ApplyError, InputError
from planner.domain.fleet import Role
from planner.domain.rollout import StepKind
from planner.domain.target import ClusterTarget
from tests.actuators.kubernetes.rig import (
    DECODE,
    PREFILL,
    counted,
    deployment,
    grown,
    rigged,
)

GROW = ((StepKind.START, PREFILL), (StepKind.ROUTE, PREFILL))
SHRINK = ((StepKind.DRAIN, DECODE), (StepKind.STOP, DECODE))


def states(fleet):
    return {p.shape.role: (p.ready, p.starting, p.draining) for p in fleet.pools}


def test_a_fleet_is_read_with_what_is_on_its_way():
    with rigged(prefill=1, decode=2) as rig:
        rig.cluster.scale("deployments", "prefill", 3, manager="kubectl")
        rig.simulation.step()
        fleet = rig.actuator().read_fleet()
        assert states(fleet) == {Role.PREFILL: (1, 2, 0), Role.DECODE: (2, 0, 0)}


def test_each_count_is_written_once_under_its_own_name():
    with rigged(prefill=1, decode=2) as rig:
        actuator = rig.actuator()
        carry_out(actuator, grown(actuator, *GROW, *SHRINK))
        counts = [w for w in rig.cluster.writes if w.subresource == "scale"]
        assert [(w.name, w.body["spec"]["replicas"]) for w in counts] == [
            ("prefill", 2),
            ("decode", 1),
        ]
        assert {w.manager for w in rig.cluster.writes} == {"poolwise"}


def test_the_pod_that_leaves_is_the_one_that_serves_nobody():
    with rigged(decode=2) as rig:
        rig.cluster.scale("deployments", "decode", 3, manager="kubectl")
        rig.simulation.step()
        before = {p["metadata"]["name"] for p in rig.cluster.objects("pods", "default")}
        actuator = rig.actuator()
        carry_out(actuator, grown(actuator, (StepKind.DRAIN, DECODE)))
        rig.simulation.step(60.0)
        after = {p["metadata"]["name"] for p in rig.cluster.objects("pods", "default")}
        assert len(before - after) == 1
        assert states(rig.actuator().read_fleet())[Role.DECODE] == (2, 0, 0)


def test_without_accelerators_the_inventory_shrinks_for_a_while(example_spec):
    with rigged(prefill=1, decode=2, gpus=4) as rig:
        actuator = rig.actuator()
        diff = grown(actuator, *[(StepKind.START, PREFILL)] * 2)
        with pytest.raises(ApplyError, match=r"1 of 3 replicas found no h100 .* Insufficient") as r:
            carry_out(actuator, diff)
        cause = r.value.__cause__
        assert isinstance(cause, StockOutError)
        assert (cause.stock_out.accelerator, cause.stock_out.usable) == ("h100", 4)
        out = cause.stock_out
        spec = example_spec("h100", 8)
        assert with_usable_inventory(spec, (out,), now=out.until_at).accelerators[0].inventory == 8
        early = with_usable_inventory(spec, (out,), now=diff.from_fleet.read_at)
        assert early.accelerators[0].inventory == 4


def test_pods_that_do_not_come_are_told_with_their_reason():
    with rigged() as rig:
        rig.simulation.stuck = lambda pod: pod["metadata"]["labels"]["app"] == "prefill"
        actuator = rig.actuator()
        with pytest.raises(ApplyError, match="0 of 2 replicas are ready after 600 s"):
            carry_out(actuator, grown(actuator, *GROW))


def test_a_drain_that_would_end_requests_is_refused_unless_it_is_allowed():
    with rigged() as rig:
        rig.cluster.delete("deployments", "decode")
        rig.simulation.step(300.0)
        rig.cluster.load(deployment("decode", 2, shutdown_s=200))
        rig.simulation.step()
        rig.simulation.step(120.0)
        actuator = rig.actuator()
        diff = grown(actuator, *SHRINK)
        with pytest.raises(ApplyError, match="killed after terminationGracePeriodSeconds 130 s"):
            carry_out(actuator, diff)
        assert rig.replicas("decode") == 2
        rig.target = ClusterTarget(require_drain=False)
        other = rig.actuator()
        carry_out(other, grown(other, *SHRINK))
        assert rig.replicas("decode") == 1


def test_every_pool_needs_one_object_of_its_own():
    with rigged() as rig:
        rig.objects = (counted(Role.PREFILL, "prefill"),)
        with pytest.raises(InputError, match=r"decode:h100:tp1 needs exactly one object.* none"):
            rig.actuator()
        rig.objects = (
            counted(Role.PREFILL, "x"),
            counted(Role.DECODE, "a"),
            counted(Role.DECODE, "b"),
        )
        with pytest.raises(InputError, match="found Deployment a, Deployment b"):
            rig.actuator()
        rig.objects = (counted(Role.PREFILL, "prefill"), counted(Role.DECODE, "prefill"))
        with pytest.raises(InputError, match="Deployment prefill holds the counts of several"):
            rig.actuator()


def test_a_status_that_changes_while_a_count_is_written_does_not_end_the_rollout():
    with rigged(prefill=1) as rig:
        actuator = rig.actuator()
        diff = grown(actuator, *[(StepKind.START, PREFILL)] * 3)

        def pods_come(_call):
            rig.simulation.step(200.0)

        rig.cluster.fault(
            verb="patch", resource="deployments", dry_run=False, nth=2, hook=pods_come
        )
        carry_out(actuator, diff)
        assert rig.replicas("prefill") == 4
        assert [w.code for w in rig.cluster.writes if w.subresource == "scale"].count(409) == 1
        assert rig.cluster.get("deployments", "prefill")["metadata"]["generation"] == 4


def test_an_object_that_never_rests_ends_it_with_one_sentence():
    with rigged(prefill=1) as rig:
        actuator = rig.actuator()
        diff = grown(actuator, (StepKind.START, PREFILL))
        rig.cluster.fault(
            verb="patch", resource="deployments", dry_run=False, status=409, times=None
        )
        with pytest.raises(ApplyError, match=r"failed at step 1 of 1 .*someone else changed it"):
            carry_out(actuator, diff)
        assert rig.replicas("prefill") == 1


def test_a_count_that_somebody_changes_while_another_moves_ends_the_rollout():
    """Nothing is drained on the strength of capacity that may be gone, and no success told."""
    with rigged(prefill=1, decode=2) as rig:
        actuator = rig.actuator()
        diff = grown(actuator, (StepKind.START, PREFILL), *SHRINK)

        def by_hand(_call):
            rig.cluster.scale("deployments", "decode", 9, manager="kubectl-edit")

        rig.cluster.fault(
            verb="patch", resource="deployments", dry_run=False, name="prefill", hook=by_hand
        )
        with pytest.raises(
            ApplyError, match=r"step 1 .*Deployment decode has 9 replicas, not 2 as expected"
        ):
            carry_out(actuator, diff)
        assert (rig.replicas("prefill"), rig.replicas("decode")) == (2, 9)


def test_nothing_more_is_taken_away_once_new_capacity_is_gone_again():
    """New prefill replicas crash after they were seen: the second drain is not begun."""
    with rigged(prefill=1, decode=3) as rig:
        actuator = rig.actuator()
        diff = grown(actuator, *GROW, *SHRINK, *SHRINK)
        known = {pod["metadata"]["name"] for pod in rig.cluster.objects("pods", "default")}

        def crash(_call):
            rig.simulation.stuck = lambda pod: pod["metadata"]["name"] not in known

        rig.cluster.fault(
            verb="patch", resource="deployments", dry_run=False, name="decode", hook=crash
        )
        with pytest.raises(
            ApplyError, match=r"of 2 replicas of Deployment prefill that served 1 are ready"
        ):
            carry_out(actuator, diff)
        assert (rig.replicas("prefill"), rig.replicas("decode")) == (2, 2)


def test_every_pod_has_to_finish_its_requests_not_the_first_one_only():
    """Half-way through a roll-out of the template: any of them may be the one that goes."""
    with rigged(prefill=1, decode=2) as rig:
        actuator = rig.actuator()
        diff = grown(actuator, *SHRINK)
        known = {pod["metadata"]["uid"] for pod in rig.cluster.objects("pods", "default")}
        made = []

        def one_comes(pod):
            new = pod["metadata"]["uid"] not in known
            made.extend([pod["metadata"]["uid"]] if new and not made else [])
            return 600.0 if new and pod["metadata"]["uid"] not in made else 0.0

        rig.simulation.startup_s = one_comes
        decode = rig.cluster.get("deployments", "decode")
        decode["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 5
        rig.cluster.update(decode)
        rig.simulation.step(1.0)
        (objection,) = actuator.preflight(diff)
        assert "killed after terminationGracePeriodSeconds 5 s" in objection


def test_a_look_at_the_fleet_meanwhile_changes_nothing_that_a_rollout_rests_on():
    """As a tick looks while a person's plan is on its way."""
    with rigged(prefill=1, decode=3) as rig:
        actuator = rig.actuator()
        diff = grown(actuator, *GROW, *SHRINK)

        def somebody(step, event):
            if step.kind is StepKind.ROUTE and event == "begun":
                rig.cluster.scale("deployments", "decode", 2, manager="kubectl")
                actuator.read_fleet()

        with pytest.raises(ApplyError, match=r"decode has 2 replicas, not 3 as expected"):
            carry_out(actuator, diff, tell=somebody)
        assert rig.replicas("decode") == 2


def test_replicas_that_come_one_by_one_are_all_waited_for_though_others_look():
    with rigged(prefill=1, decode=2) as rig:
        actuator = rig.actuator()
        starts = [(StepKind.START, PREFILL)] * 3
        diff = grown(actuator, *starts, *[(StepKind.ROUTE, PREFILL)] * 3)
        carry_out(actuator, diff, tell=lambda _step, _event: actuator.read_fleet())
        assert rig.replicas("prefill") == 4


def test_new_capacity_that_is_gone_while_others_look_still_holds_the_drain():
    with rigged(prefill=1, decode=3) as rig:
        actuator = rig.actuator()
        diff = grown(actuator, *GROW, *SHRINK, *SHRINK)
        known = {pod["metadata"]["name"] for pod in rig.cluster.objects("pods", "default")}

        def crash(_call):
            rig.simulation.stuck = lambda pod: pod["metadata"]["name"] not in known

        def look(step, event):
            if step.kind is StepKind.DRAIN and event == "done":
                actuator.read_fleet()

        rig.cluster.fault(
            verb="patch", resource="deployments", dry_run=False, name="decode", hook=crash
        )
        with pytest.raises(ApplyError, match="nothing is taken away on the strength of them"):
            carry_out(actuator, diff, tell=look)
        assert (rig.replicas("prefill"), rig.replicas("decode")) == (2, 2)
