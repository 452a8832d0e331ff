"""What every actuator keeps to: the same assertions on a dry run, processes and clusters."""

import os
from collections.abc import Iterator

import pytest

from actuators.actuator import Actuator, carry_out
from planner.domain.errors import ApplyError, StalePlanError
from planner.domain.fleet import Fleet, ReplicaShape
from planner.domain.rollout import Diff, Step, StepKind
from tests.actuators.kubernetes.rig import step
from tests.actuators.worlds import Imagined, Local, World, fake_cluster, real_cluster
from tests.kubernetes.site import plain_site
from tests.serving.conftest import stub_sites

KINDS = (
    "dry_run",
    "local",
    "fake_cluster",
    pytest.param("real_cluster", marks=pytest.mark.cluster),
)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with Local.running(stub_sites(tmp_path_factory.mktemp("local"))()) as world:
        yield world


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    match request.param:
        case "dry_run":
            yield Imagined()
        case "local":
            local: Local = request.getfixturevalue("processes")
            local.begin()
            yield local
        case "fake_cluster":
            with fake_cluster() as cluster:
                yield cluster
        case _:
            if not os.environ.get("KUBECONFIG"):
                pytest.skip("KUBECONFIG is not set: no real cluster to check the contract on")
            with (
                plain_site().in_namespace() as site,
                real_cluster(site.client, site.namespace) as cluster,
            ):
                yield cluster


def diff(actuator: Actuator, *steps: tuple[StepKind, ReplicaShape], **more: ReplicaShape) -> Diff:
    """These steps from what runs now; `to` is the shape that flips go to."""
    fleet = actuator.read_fleet()
    to = more.get("to")
    return Diff(
        plan_id="p",
        from_fleet=fleet,
        steps=tuple(
            step(i, kind, shape, to if kind is StepKind.FLIP else None)
            for i, (kind, shape) in enumerate(steps)
        ),
    )


def grow(shape: ReplicaShape) -> tuple[tuple[StepKind, ReplicaShape], ...]:
    return (StepKind.START, shape), (StepKind.ROUTE, shape)


def shrink(shape: ReplicaShape) -> tuple[tuple[StepKind, ReplicaShape], ...]:
    return (StepKind.DRAIN, shape), (StepKind.STOP, shape)


def states(fleet: Fleet, world: World) -> list[tuple[int, int, int]]:
    """Ready, starting and draining replicas of prefill and decode."""
    found = [[p for p in fleet.pools if p.shape == shape] for shape in world.shapes]
    return [
        (sum(p.ready for p in ps), sum(p.starting for p in ps), sum(p.draining for p in ps))
        for ps in found
    ]


def test_a_fleet_is_read_as_it_runs_and_reading_changes_nothing(world: World) -> None:
    actuator = world.actuator()
    first, second = actuator.read_fleet(), actuator.read_fleet()
    assert states(first, world) == [(2, 0, 0), (2, 0, 0)]
    assert first.version == second.version == world.actuator().read_fleet().version
    assert world.serving() == (2, 2)


def test_the_version_changes_when_somebody_else_changes_the_fleet(world: World) -> None:
    actuator = world.actuator()
    before = actuator.read_fleet()
    world.somebody_adds()
    after = actuator.read_fleet()
    assert states(after, world) == [(2, 0, 0), (3, 0, 0)]
    assert after.version != before.version


def test_a_replica_is_added_and_another_taken_away(world: World) -> None:
    prefill, decode = world.shapes
    actuator = world.actuator()
    before = actuator.read_fleet()
    told: list[tuple[Step, str]] = []
    wanted = diff(actuator, *grow(prefill), *shrink(decode))
    done = carry_out(actuator, wanted, tell=lambda one, event: told.append((one, event)))
    assert [d.step for d in done] == list(wanted.steps)
    assert told == [(one, event) for one in wanted.steps for event in ("begun", "done")]
    assert world.serving() == (3, 1)
    fleet = world.actuator().read_fleet()
    assert states(fleet, world) == [(3, 0, 0), (1, 0, 0)]
    assert fleet.version != before.version


def test_several_replicas_of_a_pool_are_counted_up(world: World) -> None:
    prefill, _decode = world.shapes
    actuator = world.actuator()
    carry_out(
        actuator, diff(actuator, *[(StepKind.START, prefill)] * 2, *[(StepKind.ROUTE, prefill)] * 2)
    )
    assert world.serving() == (4, 2)
    assert states(actuator.read_fleet(), world) == [(4, 0, 0), (2, 0, 0)]


def test_a_role_is_flipped_in_place_or_that_is_refused_beforehand(world: World) -> None:
    prefill, decode = world.shapes
    actuator = world.actuator()
    flip = diff(actuator, (StepKind.FLIP, prefill), to=decode)
    if world.flips:
        carry_out(actuator, flip)
        assert world.serving() == (1, 3)
        return
    with pytest.raises(ApplyError, match=r"nothing was touched: .* cannot be changed in place"):
        carry_out(actuator, flip)
    assert world.serving() == (2, 2)


def test_a_diff_is_applied_once(world: World) -> None:
    prefill, _decode = world.shapes
    actuator = world.actuator()
    wanted = diff(actuator, *grow(prefill))
    carry_out(actuator, wanted)
    for again in (actuator, world.actuator()):
        with pytest.raises(StalePlanError, match="nothing was touched: plan again"):
            carry_out(again, wanted)
    assert world.serving() == (3, 2)
    assert states(actuator.read_fleet(), world) == [(3, 0, 0), (2, 0, 0)]


def test_a_fleet_that_somebody_changed_meanwhile_is_not_touched(world: World) -> None:
    prefill, _decode = world.shapes
    actuator = world.actuator()
    wanted = diff(actuator, *grow(prefill))
    world.somebody_adds()
    with pytest.raises(StalePlanError, match="nothing was touched: plan again"):
        carry_out(actuator, wanted)
    assert world.serving() == (2, 3)
    assert states(actuator.read_fleet(), world) == [(2, 0, 0), (3, 0, 0)]


def refused(world: World, *steps: tuple[StepKind, ReplicaShape]) -> str:
    """The one sentence that a diff is refused with before its first step."""
    actuator = world.actuator()
    told: list[str] = []
    with pytest.raises(ApplyError) as caught:
        carry_out(actuator, diff(actuator, *steps), tell=lambda _s, event: told.append(event))
    said = str(caught.value)
    assert "nothing was touched" in said
    assert "\n" not in said
    assert told == []
    assert world.serving() == (2, 2)
    assert states(actuator.read_fleet(), world) == [(2, 0, 0), (2, 0, 0)]
    return said


def test_a_shape_or_role_that_it_cannot_have_is_refused_before_anything_moves(world: World) -> None:
    if not world.foreign:
        pytest.skip("anything can be imagined")
    prefill, _decode = world.shapes
    for shape in world.foreign:
        assert "nothing was touched: step 3 " in refused(world, *grow(prefill), *grow(shape))


def test_a_replica_that_is_not_there_is_not_taken(world: World) -> None:
    prefill, decode = world.shapes
    said = refused(world, *grow(prefill), *[(StepKind.DRAIN, decode)] * 3)
    assert "step 5 (drain) finds no replica to act on" in said


def test_preflight_changes_nothing(world: World) -> None:
    prefill, decode = world.shapes
    actuator = world.actuator()
    assert actuator.preflight(diff(actuator, *grow(prefill), *shrink(decode))) == ()
    assert world.serving() == (2, 2)
    assert states(actuator.read_fleet(), world) == [(2, 0, 0), (2, 0, 0)]


def test_success_is_told_of_what_was_seen_only_and_the_rest_can_be_completed(world: World) -> None:
    if not world.fails:
        pytest.skip("what is imagined is there")
    prefill, decode = world.shapes
    actuator = world.actuator()
    told: list[str] = []
    world.nothing_comes()
    wanted = diff(actuator, *grow(prefill), *shrink(decode))
    with pytest.raises(ApplyError, match=r"failed at step 1 of 4 \(start .*, 3 steps left undone"):
        carry_out(actuator, wanted, tell=lambda s, event: told.append(f"{s.kind} {event}"))
    assert told == ["start begun"]
    assert world.serving() == (2, 2)

    world.things_come()
    again = world.actuator()
    (_ready, starting, _draining), _decode = states(again.read_fleet(), world)
    left = [(StepKind.START, prefill)] * (1 - starting)
    carry_out(again, diff(again, *left, (StepKind.ROUTE, prefill), *shrink(decode)))
    assert world.serving() == (3, 1)
    assert states(again.read_fleet(), world) == [(3, 0, 0), (1, 0, 0)]
