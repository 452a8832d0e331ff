"""What Poolwise knows of a cluster's fleet: what does not come, and what others change."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from planner.domain.errors import ApplyError, StalePlanError
from planner.domain.fleet import Role
from planner.domain.rollout import ApprovalState, StepKind
from planner.service.fleet import lifecycle
from planner.service.fleet.kubernetes_target import kubernetes_actuator
from planner.service.fleet.rollouts import settle_interrupted
from planner.service.loop.directives import Word, pin
from planner.service.loop.slow_tick import Outcome, tick
from profiler.files import write_profile
from tests.actuators.kubernetes.rig import deployment
from tests.fakes.profiles import linear_profile
from tests.kubernetes import FakeCluster
from tests.kubernetes.simulation import ControllerSimulation
from tests.planner.service.examples import NOON, history, window
from tests.planner.service.fleet.test_kubernetes_target import OBJECTS, on_the_clock_of
from tests.planner.service.imagined import BUSY, make_deployment, observe


class World:
    """A deployment on a fake cluster whose pods take a minute to come; time goes as it is told."""

    def __init__(self, cluster, folder, counts, *, objects=OBJECTS, gpus=(), stuck=None, **spec):
        self.cluster, self.now = cluster, NOON
        for name, count in counts.items():
            accelerator = "A100" if name.endswith("-a") else "NVIDIA-H100-80GB-HBM3"
            text = deployment(name, count)
            cluster.load(text.replace("NVIDIA-H100-80GB-HBM3", accelerator))
        self.simulation = ControllerSimulation(cluster, startup_s=60.0, drain_s=10.0)
        if stuck is not None:
            self.simulation.stuck = stuck
        for product, count in gpus:
            self.simulation.gpus(product, count)
        self.simulation.step()
        self.simulation.step(120.0)
        target = {
            "kind": "kubernetes",
            "kubeconfig": str(cluster.kubeconfig(folder / "config")),
            "objects": objects,
            "progress_deadline_s": 600,
        }
        loop = {"mode": "auto", "solver_time_limit_s": 5.0}
        made = make_deployment(folder, **{"target": target, "loop": loop} | spec)
        actuator = on_the_clock_of(self.simulation, kubernetes_actuator(made.spec))
        self.service = replace(made, actuator=actuator, clock=lambda: self.now)

    def tick(self, minutes=2, **load):
        """See a steady load until now, tick, and let time go on."""
        windows = history(**(load or BUSY))
        for one in windows:
            start_at = datetime.fromisoformat(one["start_at"]) + (self.now - NOON)
            one["start_at"] = start_at.isoformat()
        observe(self.service, windows)
        report = tick(self.service, now=self.now)
        self.now += timedelta(minutes=minutes)
        self.simulation.step(60.0 * minutes)
        return report

    def by_hand(self, name, count):
        self.cluster.scale("deployments", name, count, manager="kubectl")
        self.simulation.step()
        self.simulation.step(100.0)

    def count(self, name):
        return self.cluster.get("deployments", name)["spec"]["replicas"]

    def ready(self, role, accelerator="cpu"):
        pools = self.service.actuator.read_fleet().pools
        of = [p for p in pools if (p.shape.role, p.shape.accelerator) == (role, accelerator)]
        return sum(p.ready for p in of)


@pytest.fixture
def world(tmp_path):
    made = []
    with FakeCluster(crds="all") as cluster:

        def make(counts, **changes):
            made.append(World(cluster, tmp_path, counts, **changes))
            return made[-1]

        yield make
        for one in made:
            one.service.store.close()


def test_of_what_found_no_place_the_next_plan_takes_back_all_and_goes_elsewhere(world, tmp_path):
    """Of the 4 cpu 2 are free; a100 are dearer, and there are enough of them."""
    write_profile(linear_profile(profile_id="a", accelerator="a100"), tmp_path / "a.json")
    names = {"prefill": "cpu", "decode": "cpu", "prefill-a": "a100", "decode-a": "a100"}
    objects = [
        {"role": n.split("-")[0], "accelerator": a, "kind": "Deployment", "name": n}
        for n, a in names.items()
    ]
    offers = [("cpu", 1.0), ("a100", 1.5)]
    one = world(
        {"prefill": 1, "decode": 1, "prefill-a": 0, "decode-a": 0},
        objects=objects,
        gpus=(("NVIDIA-H100-80GB-HBM3", 4), ("A100", 16)),
        profiles=["tiny.json", "a.json"],
        accelerators=[
            {"name": n, "per_node": 8, "inventory": 16, "usd_per_gpu_hour": {"on_demand": usd}}
            for n, usd in offers
        ],
        pools=[
            {"model": "tiny", "role": r, "accelerator": a}
            for a, _ in offers
            for r in ("prefill", "decode")
        ],
    )
    first = one.tick()
    assert first.outcome is Outcome.FAILED
    assert "found no cpu" in first.reason
    (until_at,) = {s.until_at for s in one.service.store.stock_outs("shop", at=one.now)}
    second = one.tick()
    assert second.outcome is Outcome.APPLIED, second.reason
    wanted = second.decision.plan.windows[0]
    assert one.ready(Role.PREFILL, "a100") + one.ready(Role.PREFILL) == wanted.replicas("prefill")
    assert one.ready(Role.PREFILL, "a100") > 0
    assert one.count("prefill") == one.ready(Role.PREFILL)  # nobody is asked for in vain any more
    said = [f for f in second.decision.findings if f.guard == "stock_out"]
    assert len(said) == 1
    (now,) = one.service.store.stock_outs("shop", at=one.now)
    assert now.until_at == until_at  # no new try, no new cool-down


def broken_decode():
    """The first decode pod never becomes ready."""
    chosen = []

    def stuck(pod):
        name = pod["metadata"]["name"]
        if pod["metadata"]["labels"]["app"] == "decode" and not chosen:
            chosen.append(name)
        return name in chosen

    return stuck


def test_a_pod_that_is_broken_costs_one_deadline_and_the_role_grows(world):
    one = world({"prefill": 9, "decode": 3}, stuck=broken_decode())
    load = {"requests": 2400, "isl": 700, "osl": 500}
    began_s = one.simulation.now_s
    first = one.tick(**load, minutes=0)
    assert first.outcome is Outcome.FAILED
    assert first.reason.endswith("it was rolled back")
    assert one.simulation.now_s - began_s < 600 + 300  # not once more for the way back
    assert one.service.store.known_pools("shop")["decode:cpu:tp1"].late == 0
    second = one.tick(**load)
    assert second.outcome is Outcome.APPLIED, second.reason
    assert one.ready(Role.DECODE) == second.decision.plan.windows[0].replicas("decode") > 3


LOAD = {"requests": 2400, "isl": 700, "osl": 500}


def with_a_broken_image(world, **changes):
    """Decode pods that come from now on cannot pull their image; those that are there serve."""
    one = world({"prefill": 9, "decode": 3}, **changes)
    known = {pod["metadata"]["uid"] for pod in one.cluster.objects("pods", "default")}

    def broken(pod):
        of_it = pod["metadata"]["labels"]["app"] == "decode"
        old = pod["spec"]["containers"][0]["image"] == "vllm"
        return "ImagePullBackOff" if of_it and old and pod["metadata"]["uid"] not in known else ""

    one.simulation.broken = broken
    return one


def backed_off(report):
    (found,) = [f.reason for f in report.decision.findings if f.guard == "broken_template"]
    return found


def test_a_broken_image_is_tried_again_later_each_time_and_that_is_said(world):
    one = with_a_broken_image(world)
    first = one.tick(**LOAD)
    assert first.outcome is Outcome.FAILED
    assert "ImagePullBackOff" in first.reason
    until = one.now - timedelta(minutes=2) + timedelta(minutes=10)
    held = one.tick(**LOAD, minutes=9)
    assert held.outcome is not Outcome.FAILED, held.reason
    said = backed_off(held)
    assert "replicas of decode:cpu:tp1 did not start, once (engine: ImagePullBackOff)" in said
    assert f"none is tried again before {until:%Y-%m-%d %H:%M} UTC" in said
    assert one.count("decode") == 3
    again = one.tick(**LOAD, minutes=19)
    assert again.outcome is Outcome.FAILED
    assert one.service.store.known_pools("shop")["decode:cpu:tp1"].broken.times == 2
    assert "2 times in a row" in backed_off(one.tick(**LOAD))  # 20 minutes by now, not 10


def test_another_template_ends_that_at_once(world):
    one = with_a_broken_image(world)
    assert one.tick(**LOAD).outcome is Outcome.FAILED
    decode = one.cluster.get("deployments", "decode")
    decode["spec"]["template"]["spec"]["containers"][0]["image"] = "vllm:mended"
    one.cluster.update(decode)
    for _ in range(10):  # one replica after the other is replaced
        one.simulation.step(200.0)
    mended = one.tick(**LOAD)
    assert mended.outcome is Outcome.APPLIED, mended.reason
    assert one.ready(Role.DECODE) > 3
    assert one.service.store.known_pools("shop")["decode:cpu:tp1"].broken is None


def test_a_person_who_pins_the_pool_ends_that_and_what_comes_then_is_forgiven(world):
    one = with_a_broken_image(world)
    assert one.tick(**LOAD).outcome is Outcome.FAILED
    one.simulation.broken = lambda _pod: ""  # the image is in the registry again
    assert one.tick(**LOAD, minutes=1).outcome is not Outcome.FAILED
    assert one.count("decode") == 3
    pin(one.service, "decode:cpu:tp1", 5, Word(by="ann", at=one.now))
    pinned = one.tick(**LOAD)
    assert pinned.outcome is Outcome.APPLIED, pinned.reason
    assert one.ready(Role.DECODE) == 5
    assert one.service.store.known_pools("shop")["decode:cpu:tp1"].broken is None


def test_without_that_guard_every_plan_tries_the_broken_image_again(world):
    one = with_a_broken_image(world, guards={"broken_backoff_s": 0})
    assert [one.tick(**LOAD).outcome for _ in range(2)] == [Outcome.FAILED] * 2


def test_a_stuck_pod_is_known_after_a_restart_and_nobody_waits_for_it(world):
    guards = {"roll_back_late_plans": False}
    one = world({"prefill": 9, "decode": 3}, stuck=broken_decode(), guards=guards)
    load = {"requests": 2400, "isl": 700, "osl": 500}
    assert one.tick(**load, minutes=0).outcome is Outcome.FAILED
    assert one.service.store.known_pools("shop")["decode:cpu:tp1"].late == 1
    began_s = one.simulation.now_s
    second = one.tick(**load, minutes=0)
    assert second.outcome is Outcome.APPLIED, second.reason
    assert one.simulation.now_s - began_s < 600
    drained = [s for s in second.decision.diff.steps if s.kind is StepKind.DRAIN]
    assert [s.shape.role for s in drained if "did not come in time" in s.reason] == [Role.DECODE]


def test_what_somebody_sets_by_hand_is_told_and_not_taken_back_for_a_while(world):
    one = world({"prefill": 1, "decode": 1})
    assert one.tick().outcome is Outcome.APPLIED
    planned = one.count("decode")
    for _ in range(4):
        one.tick()
    one.by_hand("decode", 6)
    seen = one.tick()
    told = f"decode:cpu:tp1 was changed from {planned} to 6 replicas by somebody else"
    assert told in seen.reason
    notes = [f for f in seen.decision.findings if f.guard == "changed_by_others"]
    assert [told in f.reason for f in notes] == [True]
    (line,) = [e for e in one.service.store.audit(limit=99) if e.action.endswith("by_others")]
    assert (line.subject, line.detail) == ("decode:cpu:tp1", f"{planned} -> 6 replicas")
    for _ in range(2):
        assert one.count("decode") == 6
        one.tick()
    assert one.count("decode") == 6
    one.tick()
    assert one.count("decode") == planned  # after 300 s the plan counts again


def test_without_that_hold_it_is_set_back_with_the_next_tick(world):
    one = world({"prefill": 1, "decode": 1}, guards={"hand_edit_hold_s": 0})
    one.tick()
    planned = one.count("decode")
    for _ in range(4):
        one.tick()
    one.by_hand("decode", 6)
    one.tick()
    assert one.count("decode") == planned


def broken_off_by_hand(one):
    """A plan that stopped since somebody set decode to 7 while it was applied."""
    plan_id = one.tick(minutes=0).decision.plan.plan_id
    service = one.service
    lifecycle.approve(service, plan_id, by="bob", at=one.now)
    one.cluster.fault(
        verb="patch",
        resource="deployments",
        subresource="scale",
        dry_run=False,
        moment="after",
        hook=lambda _c: one.cluster.scale("deployments", "decode", 7, manager="kubectl"),
    )
    with pytest.raises(ApplyError, match="somebody else changed it"):
        lifecycle.apply(service, plan_id, by="bob", at=one.now)
    one.cluster.heal()
    one.simulation.step(200.0)
    return plan_id


def test_a_plan_that_a_hand_edit_stopped_is_not_completed_but_planned_anew(world):
    one = world({"prefill": 1, "decode": 1}, loop={"mode": "approve", "solver_time_limit_s": 5.0})
    plan_id = broken_off_by_hand(one)
    before = [one.count(n) for n in ("prefill", "decode")]
    for _ in range(2):
        with pytest.raises(StalePlanError, match=r"decode:cpu:tp1 has 7 replicas.*plan again"):
            lifecycle.apply(one.service, plan_id, by="bob", at=one.now)
    assert [one.count(n) for n in ("prefill", "decode")] == before
    record = one.service.store.plan(plan_id)
    assert record.approval.state is ApprovalState.FAILED
    assert record.approval.reason.count("it is not completed") == 1


def test_a_new_leader_does_not_complete_it_either(world):
    one = world({"prefill": 1, "decode": 1}, loop={"mode": "approve", "solver_time_limit_s": 5.0})
    plan_id = broken_off_by_hand(one)
    leader = replace(one.service, running=[])
    settle_interrupted(leader, at=one.now)
    with pytest.raises(StalePlanError, match="somebody else changed it"):
        lifecycle.apply(leader, plan_id, by="bob", at=one.now)
    assert one.count("decode") == 7


def test_a_plan_that_failed_for_another_reason_is_completed_as_ever(world):
    one = world({"prefill": 1, "decode": 1}, loop={"mode": "approve", "solver_time_limit_s": 5.0})
    plan_id = one.tick(minutes=0).decision.plan.plan_id
    lifecycle.approve(one.service, plan_id, by="bob", at=one.now)
    one.cluster.fault(verb="patch", resource="deployments", subresource="scale", dry_run=False,
                      moment="before", status=403)  # fmt: skip
    with pytest.raises(ApplyError):
        lifecycle.apply(one.service, plan_id, by="bob", at=one.now)
    one.cluster.heal()
    done = lifecycle.apply(one.service, plan_id, by="bob", at=one.now)
    assert done.approval.state is ApprovalState.APPLIED


def test_a_short_dip_takes_nothing_that_was_needed_a_minute_before(tmp_path):
    """7 of 9 prefill for more than 300 s: 2 go. The dip that follows takes no more."""
    target = {"kind": "kubernetes", "objects": OBJECTS}
    loop = {"mode": "auto", "solver_time_limit_s": 5.0}
    made = make_deployment(tmp_path, prefill=9, decode=2, loop=loop, target=target)
    now = [NOON]
    made = replace(made, clock=lambda: now[0])
    windows = [window(i, **{**BUSY, "requests": 3000}) for i in range(-20, 0)]
    counts = []
    try:
        for minute, load in enumerate([3000, *[2500] * 6, *[900] * 2]):
            now[0] = NOON + timedelta(minutes=minute)
            if minute:
                one = window(0, **{**BUSY, "requests": load})
                one["start_at"] = (now[0] - timedelta(minutes=1)).isoformat()
                windows.append(one)
            observe(made, windows)
            report = tick(made, now=now[0])
            fleet = made.actuator.read_fleet()
            counts.append(fleet.replicas(Role.PREFILL))
        assert counts[0] == 9
        steady = counts[6]
        assert report.decision.plan.windows[0].replicas("prefill") < steady < 9
        assert counts[-2:] == [steady, steady]
        assert "more were wanted within the last 300 s" in report.reason
    finally:
        made.store.close()
