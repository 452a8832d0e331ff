"""Replicas in cells: the best placement by enumeration, what crosses, and the steps there."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from planner.domain.fleet import CellPool, Fleet, Pool, ReplicaShape, Role, merged, version_of
from planner.domain.guards import Pause
from planner.domain.placement import Placement
from planner.domain.plan import Plan
from planner.domain.rollout import StepKind, Verdict
from planner.domain.spec import Spec, TargetKind
from planner.domain.topology import Cell
from planner.rollout import after, diff, with_placements
from planner.rollout.cells import Site, place
from planner.rollout.effects import PoolKey, applied, pools_before, serves
from planner.rollout.placing import PlacingProblem, Room, solve_placing
from tests.planner.rollout.cases import MODEL, NOW, P_A100, P_TP2, A, D, P, on_demand, plan, spec
from tests.planner.rollout.guards.situations import CALM, steps_taken, verdict

NAMES = ("left", "right", "third")
In = Mapping[tuple[str, ReplicaShape], int]
"""Replicas by cell and shape."""


def placed(wanted: Mapping[ReplicaShape, int], *rooms: Room, now: In | None = None) -> Placement:
    """A placement over two cells, all replicas of a role alike."""
    counts = {on_demand(shape): count for shape, count in wanted.items()}
    each_rps = dict.fromkeys(counts, 1.0)
    return place(counts, each_rps, Site(names=NAMES[:2], rooms=rooms), keyed(now or {}))


def keyed(counts: In) -> dict[PoolKey, int]:
    return {replace(on_demand(shape), cell=cell): n for (cell, shape), n in counts.items()}


def by_cell(placement: Placement) -> In:
    return {(r.cell, r.shape): r.replicas for r in placement.replicas}


def room(cell: str, accelerators: int) -> Room:
    return Room(cells=(cell,), accelerators=accelerators)


def celled(*cells: Cell, **settings) -> Spec:
    """The example spec, applied here, with cells."""
    own = cells or tuple(Cell(name=name) for name in NAMES[:2])
    return replace(spec(**settings), target=TargetKind.LOCAL, cells=own)


def standing(ready: In) -> Fleet:
    """A fleet of ready replicas by cell."""
    parts = tuple(CellPool(cell=c, pool=Pool(shape=s, ready=n)) for (c, s), n in ready.items())
    pools = merged(parts)
    return Fleet(pools=pools, read_at=NOW, version=version_of(pools), by_cell=parts)


def ready(fleet: Fleet) -> In:
    return {(p.cell, p.pool.shape): p.pool.ready for p in fleet.by_cell if p.pool.ready}


# The oracle


def spread(count: int, cells: tuple[str, ...]) -> Iterator[dict[str, int]]:
    """Every way to put so many replicas into cells, and into none."""
    for counts in product(range(count + 1), repeat=len(cells)):
        if sum(counts) <= count:
            yield {"": count - sum(counts), **dict(zip(cells, counts, strict=True))}


def judged(then: In, problem: PlacingProblem) -> tuple[Fraction, ...] | None:
    """All goals in order, the smaller the better; None: a room is too small."""

    def used(cells: tuple[str, ...]) -> int:
        return sum(n * s.accelerators for (cell, s), n in then.items() if cell in cells)

    if any(used(r.cells) > r.accelerators for r in problem.rooms):
        return None

    def able(role: Role, cell: str | None) -> Fraction:
        keys = ((k, s) for k, s in then if s.role is role and cell in (None, k))
        return sum(
            (then[c, s] * Fraction(problem.each_rps[on_demand(s)]) for c, s in keys), Fraction(0)
        )

    inside, alone = Fraction(0), 0
    for cell in problem.cells:
        halves = [able(role, cell) for role in (Role.PREFILL, Role.DECODE)]
        wholes = [able(role, None) for role in (Role.PREFILL, Role.DECODE)]
        if all(wholes):
            inside += min(h / w for h, w in zip(halves, wholes, strict=True))
        alone += bool(halves[0]) != bool(halves[1])

    def leaving(group) -> int:
        gone = 0
        for cell in problem.cells:
            for name in {group(k) for k in problem.wanted}:
                stood = sum(
                    n for k, n in problem.now.items() if k.cell == cell and group(k) == name
                )
                stay = sum(
                    n for (c, s), n in then.items() if c == cell and group(on_demand(s)) == name
                )
                gone += max(0, stood - stay)
        return gone

    return (
        Fraction(sum(n for (cell, _), n in then.items() if not cell)),
        -inside,
        Fraction(alone),
        Fraction(leaving(lambda k: k.shape.engine)),
        Fraction(leaving(lambda k: k.shape)),
        Fraction(max(used((cell,)) for cell in problem.cells)),
        Fraction(sum(n * used((cell,)) for n, cell in enumerate(problem.cells))),
    )


def best(problem: PlacingProblem) -> tuple[Fraction, ...]:
    ways = [list(spread(count, problem.cells)) for count in problem.wanted.values()]
    found = []
    for chosen in product(*ways):
        then = {
            (cell, key.shape): count
            for key, way in zip(problem.wanted, chosen, strict=True)
            for cell, count in way.items()
        }
        found.append(judged(then, problem))
    return min(f for f in found if f is not None)


@st.composite
def problems(draw: st.DrawFn) -> PlacingProblem:
    cells = NAMES[: draw(st.integers(1, 3))]
    shapes = draw(
        st.lists(st.sampled_from([P, D, A, P_A100, P_TP2]), min_size=1, max_size=3, unique=True)
    )
    most = 2 if len(cells) == 3 else 3
    wanted = {on_demand(shape): draw(st.integers(1, most)) for shape in shapes}
    rooms = [room(cell, draw(st.integers(0, 5))) for cell in cells if draw(st.booleans())]
    if draw(st.booleans()):
        rooms.append(Room(cells=cells, accelerators=draw(st.integers(0, 8))))
    stood = st.dictionaries(
        st.tuples(st.sampled_from([*cells, "gone"]), st.sampled_from([P, D, A])),
        st.integers(1, 2),
        max_size=3,
    )
    return PlacingProblem(
        cells=cells,
        wanted=wanted,
        each_rps={key: draw(st.sampled_from([1.0, 2.0, 4.0])) for key in wanted},
        rooms=tuple(rooms),
        now=keyed(draw(stood)),
    )


def asked(wanted: Mapping[ReplicaShape, int], now: In) -> PlacingProblem:
    counts = {on_demand(shape): count for shape, count in wanted.items()}
    return PlacingProblem(
        cells=NAMES[:2],
        wanted=counts,
        each_rps=dict.fromkeys(counts, 1.0),
        rooms=(),
        now=keyed(now),
    )


@settings(max_examples=80, deadline=None)
@example(problem=asked({P: 2}, {("left", P): 1, ("right", P): 1}))
@example(problem=asked({P: 1, D: 1}, {("right", P): 2, ("left", D): 1}))
@given(problem=problems())
def test_no_placement_is_better_than_the_one_that_is_found(problem: PlacingProblem) -> None:
    found = solve_placing(problem)
    then = {(key.cell, key.shape): count for key, count in found.replicas.items()}
    every = {(cell, k.shape): 0 for cell in ("", *problem.cells) for k in problem.wanted}
    assert found.proven
    assert judged(every | then, problem) == best(problem)
    for key, count in problem.wanted.items():
        assert sum(n for (_, shape), n in then.items() if shape == key.shape) == count


@settings(max_examples=20, deadline=None)
@given(problem=problems())
def test_the_same_question_has_the_same_answer(problem: PlacingProblem) -> None:
    assert solve_placing(problem) == solve_placing(problem)


def test_ctrl_c_still_reaches_the_process_after_a_search() -> None:
    script = (
        "import os, signal\n"
        "from tests.planner.rollout.test_cells import D, P, placed\n"
        "placed({P: 1, D: 2})\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    signal.pause()\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n"), ended.stderr


# What is placed where


def test_one_prefill_and_two_decode_stand_in_one_cell() -> None:
    placement = placed({P: 1, D: 2})
    assert by_cell(placement) == {("left", P): 1, ("left", D): 2}
    assert (placement.crossing_ratio, placement.capacity_loss_ratio) == (0.0, 0.0)


def test_two_prefill_and_four_decode_are_shared_out_evenly() -> None:
    pair = {P: 1, D: 2}
    assert by_cell(placed({P: 2, D: 4})) == {
        (cell, shape): n for cell in NAMES[:2] for shape, n in pair.items()
    }


def test_what_stands_stays_where_it_stands_as_long_as_nothing_is_lost() -> None:
    now = {("right", P): 1, ("right", D): 2}
    assert by_cell(placed({P: 1, D: 2}, now=now)) == now
    grown = placed({P: 2, D: 4}, now=now)
    assert grown.moves == 0
    assert grown.crossing_ratio == 0


def test_a_replica_moves_when_it_would_be_alone() -> None:
    now = {("left", P): 1, ("left", D): 1, ("right", P): 1, ("right", D): 1}
    placement = placed({P: 1, D: 2}, now=now)
    assert by_cell(placement) == {("left", P): 1, ("left", D): 2}
    assert placement.moves == 1


def test_a_flip_in_a_cell_is_no_move() -> None:
    now = {("left", P): 2, ("left", D): 1, ("right", P): 1, ("right", D): 2}
    placement = placed({P: 2, D: 4}, now=now)
    assert placement.moves == 0
    assert by_cell(placement) == {(c, s): n for c in NAMES[:2] for s, n in ((P, 1), (D, 2))}


def test_what_crosses_is_half_when_a_decode_has_to_stand_alone() -> None:
    placement = placed({P: 1, D: 2}, room("left", 2), room("right", 2))
    assert by_cell(placement) == {("left", P): 1, ("left", D): 1, ("right", D): 1}
    assert placement.crossing_ratio == pytest.approx(0.5)


def test_replicas_that_no_cell_has_room_for_are_counted() -> None:
    placement = placed({P: 2, D: 2}, room("left", 2), room("right", 1))
    assert placement.unplaced == 1
    assert placement.count("left", Role.PREFILL) == placement.count("left", Role.DECODE) == 1


# What a plan says


GPUS = (Cell(name="left", gpus=(0, 1)), Cell(name="right", gpus=(2, 3)))


def busy(wanted: Mapping[ReplicaShape, int], **utilization_ratio: float) -> Plan:
    """A plan with a utilization by role."""
    made = plan(wanted)
    pools = tuple(
        replace(p, utilization_ratio=utilization_ratio.get(p.shape.role.value, 0.5))
        for p in made.windows[0].pools
    )
    return replace(made, windows=(replace(made.windows[0], pools=pools),))


def test_a_spec_without_cells_places_nothing() -> None:
    assert with_placements(plan({P: 1, D: 2}), spec(), None).placements == ()


def test_the_plan_says_what_would_mend_it() -> None:
    (placement,) = with_placements(busy({P: 1, D: 2}), celled(*GPUS), None).placements
    assert placement.crossing_ratio == pytest.approx(0.5)
    assert placement.capacity_loss_ratio == pytest.approx(0.5)
    assert placement.mending.startswith("with 1 more prefill (prefill:h100:tp1) the cells")


def test_what_is_said_to_mend_it_mends_it() -> None:
    (mended,) = with_placements(busy({P: 2, D: 2}), celled(*GPUS), None).placements
    assert mended.capacity_loss_ratio == 0
    assert mended.mending == ""


def test_nothing_is_lost_where_the_short_role_is_whole() -> None:
    plenty = busy({P: 1, D: 2}, prefill=0.8, decode=0.2)
    (placement,) = with_placements(plenty, celled(*GPUS), None).placements
    assert placement.crossing_ratio == pytest.approx(0.5)
    assert placement.capacity_loss_ratio == 0
    assert "costs no capacity" in placement.mending


def test_cells_without_room_for_what_would_mend_it_are_told() -> None:
    three = (Cell(name="left", gpus=(0, 1, 2)), Cell(name="right", gpus=(3, 4)))
    (placement,) = with_placements(busy({P: 2, D: 3}), celled(*three), None).placements
    assert placement.capacity_loss_ratio == pytest.approx(1 / 6)
    assert "would not mend it" in placement.mending


def test_cells_without_gpus_of_their_own_share_the_rest_of_the_inventory() -> None:
    cells = (Cell(name="left", gpus=(0, 1)), Cell(name="right"))
    settings = celled(*cells, h100=3, a100=0)
    (placement,) = with_placements(busy({P: 2, D: 2}), settings, None).placements
    assert placement.unplaced == 1


def test_windows_follow_each_other_without_moves() -> None:
    made = busy({P: 1, D: 2})
    more = replace(busy({P: 2, D: 4}).windows[0], start_at=NOW)
    there = standing({("right", P): 1, ("right", D): 2})
    windows = replace(made, windows=(made.windows[0], more))
    first, second = with_placements(windows, celled(), there).placements
    assert by_cell(first) == {("right", P): 1, ("right", D): 2}
    assert second.moves == 0


# Steps


COUNTS = st.dictionaries(st.sampled_from([P, D, A]), st.integers(0, 3), min_size=1)
STANDING = st.dictionaries(
    st.tuples(st.sampled_from(NAMES[:2]), st.sampled_from([P, D, A])), st.integers(1, 2)
)


@settings(max_examples=60, deadline=None)
@given(stood=STANDING, wanted=COUNTS, flip=st.booleans())
def test_the_steps_lead_to_the_placement_of_the_plan(
    stood: In, wanted: Mapping[ReplicaShape, int], flip: bool
) -> None:
    before, settings_ = standing(stood), celled(h100=16)
    made = with_placements(plan(wanted), settings_, before)
    steps = diff(before, made, settings_, can_flip=flip).steps
    end = after(before, steps, at=NOW)
    assert ready(end) == by_cell(made.placements[0])
    assert all(step.cell in NAMES for step in steps)
    assert {p.shape: p.ready for p in end.pools if p.ready} == {
        s: n for s, n in wanted.items() if n
    }


@settings(max_examples=60, deadline=None)
@given(stood=STANDING, wanted=COUNTS)
def test_with_room_some_cell_answers_all_the_way(
    stood: In, wanted: Mapping[ReplicaShape, int]
) -> None:
    before, settings_ = standing(stood), celled(h100=32)
    change = diff(before, plan(wanted), settings_)
    states = [pools_before(before, change.steps)]
    for step in change.steps:
        states.append(applied(states[-1], step))
    ends = serves(states[0], model=MODEL) and serves(states[-1], model=MODEL)
    assert not ends or all(serves(state, model=MODEL) for state in states)


def test_a_fleet_whose_cells_nobody_knows_gets_steps_without_cells() -> None:
    before = replace(standing({("left", P): 1, ("right", D): 1}), by_cell=())
    assert {s.cell for s in diff(before, plan({P: 1, D: 2}), celled()).steps} == {""}


def test_counts_of_a_cluster_have_no_cells() -> None:
    empty = Fleet(pools=(), read_at=NOW, version="v1")
    settings = replace(celled(), target=TargetKind.KUBERNETES)
    assert {s.cell for s in diff(empty, plan({P: 1, D: 2}), settings).steps} == {""}
    assert {s.cell for s in diff(empty, plan({P: 1, D: 2}), celled()).steps} == {"left"}


# Guards


APART = {("left", P): 1, ("right", D): 1}
"""A pair that answers nothing: one half has to move."""


def test_a_replica_moves_between_cells() -> None:
    steps, findings = steps_taken(standing(APART), plan({P: 1, D: 1}), celled())
    assert {s.kind for s in steps.steps} == set(StepKind) - {StepKind.FLIP}
    assert verdict("between_cells", findings) is Verdict.ALLOW


@pytest.mark.parametrize("pause", [Pause.IN, Pause.OUT, Pause.ALL])
def test_nothing_moves_between_cells_while_scaling_is_paused(pause: Pause) -> None:
    held = replace(CALM, paused=pause)
    steps, _ = steps_taken(standing(APART), plan({P: 1, D: 1}), celled(), held)
    assert steps.steps == ()


def test_nothing_moves_between_cells_while_the_load_is_not_seen() -> None:
    blind = replace(CALM, observed_at=None)
    steps, _ = steps_taken(standing(APART), plan({P: 1, D: 1}), celled(), blind)
    assert steps.steps == ()
