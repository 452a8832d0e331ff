"""Which tests have to notice an altered line of a package."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A package, the tests that belong to it, and those of them that are too slow for each mutant.

    `tests` and `left_out` are pytest's arguments, `left_out` as values of `--deselect`.
    """

    package: str
    tests: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    mutants: int


CAPACITY = "tests/planner/capacity"
ROLLOUT = "tests/planner/rollout"
OPTIMIZE = "tests/planner/optimize"

CASES = {
    "capacity": Case(
        package="planner/capacity",
        tests=(CAPACITY,),
        left_out=(
            f"{CAPACITY}/test_network.py::test_a_transfer_takes_as_long_as_in_the_twin",
            f"{CAPACITY}/test_even_arrivals.py::test_even_arrivals_wait_no_longer_than_random_ones",
        ),
        mutants=150,
    ),
    "rollout": Case(
        package="planner/rollout",
        tests=(ROLLOUT,),
        left_out=(
            f"{ROLLOUT}/test_on_the_way.py::"
            "test_with_room_a_rollout_keeps_the_attainment_of_the_worse_fleet",
            f"{ROLLOUT}/test_cells.py::test_ctrl_c_still_reaches_the_process_after_a_search",
        ),
        mutants=150,
    ),
    "optimize": Case(
        package="planner/optimize",
        tests=tuple(
            f"{OPTIMIZE}/test_{name}.py"
            for name in (
                "binding", "contradictions", "demand_level", "dominance", "enumeration",
                "limits_bind", "links", "objectives", "packing", "prices", "savings", "sentences",
                "shadow", "shapes", "single_gaps", "ties", "relax", "unkept", "ways",
            )
        ),
        mutants=100,
    ),
}  # fmt: skip
"""By name on the command line; of the optimizer only files that take seconds."""
