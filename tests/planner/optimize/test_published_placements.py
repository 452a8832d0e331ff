"""What DistServe, TaiChi and Splitwise published, asked of the optimizer."""

from pathlib import Path

import pytest

from benchmarks.published import distserve, splitwise, taichi
from benchmarks.published.distserve_fits import read_fits
from benchmarks.published.distserve_stages import through
from planner.domain.fleet import Role


def test_distserve_s_simulator_and_the_optimizer_place_opt_13b_alike(poolwise_data: Path) -> None:
    """Its README: 1.56 requests/s per GPU, to 0.25, with prefill tp 2 and decode tp 1."""
    case = distserve.cases(poolwise_data)[0]
    found = distserve.best_pair(read_fits(poolwise_data, case.model), case.load, gpus=case.gpus)
    assert found is not None
    assert found.placement == case.published
    assert found.rps_per_gpu == pytest.approx(
        case.published_rps_per_gpu, abs=distserve.RESOLUTION_RPS
    )


@pytest.mark.parametrize("row", [0, 1, 3])
def test_distserve_s_chatbot_placements_follow_from_how_its_simulator_times_decode(
    poolwise_data: Path, row: int
) -> None:
    case = distserve.cases(poolwise_data)[row]
    fits = read_fits(poolwise_data, case.model)
    simulated = distserve.best_as_simulated(fits, case.load, gpus=case.gpus)
    assert simulated is not None
    assert simulated.placement == case.published


@pytest.mark.parametrize("row", [0, 1, 3, 4, 5, 6])
def test_distserve_s_placements_are_as_good_as_its_search_tells_apart(
    poolwise_data: Path, row: int
) -> None:
    """All but row 2, OPT-13B on a node of 8, where ours is better (docs/optimizer.md)."""
    case = distserve.cases(poolwise_data)[row]
    fits = read_fits(poolwise_data, case.model)
    found = distserve.best_pair(fits, case.load, gpus=case.gpus)
    given = distserve.pair_rps(fits, case.load, case.published)
    assert found is not None
    assert given.rps_per_gpu <= found.rps_per_gpu * (1 + 1e-6)
    assert found.rps_per_gpu - given.rps_per_gpu < distserve.RESOLUTION_RPS


@pytest.mark.parametrize(("bubbles", "left_s"), [(True, 4.5), (False, 3.0)])
def test_a_short_batch_waits_behind_a_long_one_in_every_stage(
    *, bubbles: bool, left_s: float
) -> None:
    """A batch of 2 s a stage, then one of 0.5 s, through two stages."""
    free_s = [0.0, 0.0]
    assert through(free_s, 0.0, 2.0, bubbles=bubbles) == 4.0
    assert through(free_s, free_s[0], 0.5, bubbles=bubbles) == left_s


@pytest.fixture(scope="module")
def question(poolwise_data: Path) -> taichi.Question:
    return taichi.read_question(poolwise_data)


def test_tight_ttft_and_loose_tpot_want_aggregated_replicas(question: taichi.Question) -> None:
    made = question.plan("plan", ttft_s=0.5, tpot_s=0.2)
    apart = question.plan("disaggregated", ttft_s=0.5, tpot_s=0.2)
    assert {p.shape.role for p in made.windows[0].pools} == {Role.AGGREGATED}
    assert (taichi.gpus(apart) or 10**6) > (taichi.gpus(made) or 0) > 0


def test_tight_tpot_and_loose_ttft_want_disaggregated_replicas(question: taichi.Question) -> None:
    made = question.plan("plan", ttft_s=2.0, tpot_s=0.04)
    together = question.plan("aggregated", ttft_s=2.0, tpot_s=0.04)
    assert {p.shape.role for p in made.windows[0].pools} == {Role.PREFILL, Role.DECODE}
    assert (taichi.gpus(together) or 10**6) > (taichi.gpus(made) or 0) > 0


@pytest.fixture(scope="module")
def loads(poolwise_data: Path) -> dict[str, splitwise.Load]:
    return {trace: splitwise.read_load(poolwise_data, trace) for trace in splitwise.TRACES}


@pytest.mark.parametrize("kind", splitwise.KINDS)
def test_coding_needs_more_prefill_per_decode_than_conversation(
    poolwise_data: Path, loads: dict[str, splitwise.Load], kind: str
) -> None:
    budgets = splitwise.read_budgets(poolwise_data)
    ratio = {
        trace: splitwise.best_design(
            splitwise.problem_within(load, budgets, "isopower", splitwise.split(kind))
        ).ratio
        for trace, load in loads.items()
    }
    published = {trace: budgets.machines(f"isopower_{trace}", kind) for trace in splitwise.TRACES}
    theirs = {trace: prefill / decode for trace, (prefill, decode) in published.items()}
    assert theirs["coding"] > 2 * theirs["conversation"]
    assert ratio["coding"] > 2 * ratio["conversation"]


@pytest.mark.parametrize("question", ["isopower", "isocost"])
def test_splitwise_s_coding_cluster_of_h100s_is_the_optimizer_s(
    poolwise_data: Path, loads: dict[str, splitwise.Load], question: str
) -> None:
    budgets = splitwise.read_budgets(poolwise_data)
    roles = splitwise.split("Splitwise-HH")
    found = splitwise.best_design(
        splitwise.problem_within(loads["coding"], budgets, question, roles)
    )
    name = f"{question}_coding"
    assert (found.prefill, found.decode) == budgets.machines(name, "Splitwise-HH")


def test_splitwise_s_conversation_cluster_follows_from_its_simulator(
    poolwise_data: Path, loads: dict[str, splitwise.Load]
) -> None:
    """To the five machines in which it was searched."""
    budgets = splitwise.read_budgets(poolwise_data)
    load = splitwise.as_simulated(loads["conversation"], poolwise_data)
    roles = splitwise.split("Splitwise-HH")
    found = splitwise.best_design(splitwise.problem_within(load, budgets, "isopower", roles))
    prefill, decode = budgets.machines("isopower_conversation", "Splitwise-HH")
    assert abs(found.prefill - prefill) < 5
    assert abs(found.decode - decode) < 5
