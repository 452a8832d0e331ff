"""Answers that others published for their instances."""

from pathlib import Path

import pytest

from benchmarks.bench_published import INFERNO
from benchmarks.published import deepseek, inferno
from planner.domain.plan import PlanStatus
from planner.optimize import check, optimize


@pytest.mark.parametrize(("instance", "usd"), INFERNO.items(), ids=str)
def test_inferno_s_servers_cost_what_an_exact_solver_finds(
    poolwise_data: Path, instance: tuple[str, bool], usd: float
) -> None:
    name, one_type = instance
    folder = poolwise_data / "profiles" / "llm-inferno" / name
    case = inferno.read_instance(folder, one_shape_per_role=one_type)
    solution = optimize(case)
    assert check(case, solution) == ()
    assert (solution.status, solution.gap_ratio) == (PlanStatus.OPTIMAL, pytest.approx(0, abs=1e-9))
    assert solution.terms[0].usd == pytest.approx(usd)


def test_inferno_s_replicas_answer_as_published(poolwise_data: Path) -> None:
    """A G2 of granite_13b at 40 requests a minute: ITL 36.42 ms (their solution-data.json)."""
    replica = inferno.Replica(
        alpha=17.15, beta=0.034, gamma=0.0010625, batch=38, isl=128.0, osl=1024.0
    )
    ttft_ms, itl_ms = replica.means_ms(120 / 60 / 3 / 1e3)
    assert itl_ms == pytest.approx(36.419655, rel=1e-4)
    assert ttft_ms == pytest.approx(425.16748, rel=5e-3)


def test_deepseek_s_day_needs_the_nodes_that_ran() -> None:
    prefill, decode = deepseek.nodes()
    assert prefill + decode == pytest.approx(226.9, abs=0.05)
    assert prefill / decode == pytest.approx(0.727, abs=5e-4)
    assert prefill + decode == pytest.approx(deepseek.NODES_RUN, rel=1e-3)
    assert optimize(deepseek.read_instance()).replicas[:, 0].tolist() == [96, 132]
