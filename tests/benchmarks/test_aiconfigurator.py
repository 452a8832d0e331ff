"""The parts of the comparison with aiconfigurator that do not need it."""

from dataclasses import replace

import pytest

from benchmarks.aiconfigurator import formulas, ours
from benchmarks.aiconfigurator.question import QUESTIONS, Fleet, Rated, Worker, served_rps
from planner.domain.fleet import Role
from tests.fakes.profiles import linear_profile

QUESTION = replace(QUESTIONS[0], isl=400, osl=101)
PROFILE = linear_profile()


def rated(role, accelerator, tp, rps):
    worker = Worker(role=role, accelerator=accelerator, tp=tp, batch=1)
    return Rated(worker=worker, rps=rps, ttft_s=0.1, tpot_s=0.01)


WORKERS = [
    rated(Role.PREFILL, "h100", 1, 2.1),
    rated(Role.PREFILL, "h200", 2, 3.9),
    rated(Role.DECODE, "h100", 4, 10.8),
    rated(Role.DECODE, "h200", 2, 7.7),
    rated(Role.AGGREGATED, "h100", 4, 4.4),
]
PRICES = {"h100": 1.0, "h200": 1.25}


def test_the_slower_side_of_a_pair_decides_and_aggregated_replicas_add():
    prefill, _, decode, _, aggregated = WORKERS
    assert served_rps([(4, prefill), (1, decode)]) == pytest.approx(8.4)
    assert served_rps([(9, prefill), (1, decode), (2, aggregated)]) == pytest.approx(19.6)


def test_a_fleet_says_what_it_is_and_costs():
    fleet = Fleet(parts=((1, WORKERS[3].worker), (3, WORKERS[0].worker)))
    assert fleet.text == "3 prefill h100 tp1 + 1 decode h200 tp2"
    assert fleet.gpus == 5
    assert fleet.usd_per_hour(PRICES) == pytest.approx(5.5)


def test_a_prefill_worker_is_rated_as_aiconfigurator_does():
    point = formulas.best(PROFILE, Role.PREFILL, QUESTION)
    assert point is not None
    alone_s = float(PROFILE.prefill.at(QUESTION.isl, 0))
    assert point.worker.batch > 1 or point.rps == pytest.approx(0.9 / (1.1 * alone_s))
    assert point.ttft_s < QUESTION.ttft_s


def test_a_decode_worker_takes_the_largest_batch_that_keeps_the_time_per_token():
    point = formulas.best(PROFILE, Role.DECODE, QUESTION)
    assert point is not None
    step_s = float(PROFILE.decode_step.at(point.worker.batch, QUESTION.isl + QUESTION.osl / 2))
    assert point.tpot_s == pytest.approx(1.08 * step_s)
    assert point.rps == pytest.approx(0.92 * point.worker.batch / (100 * point.tpot_s))


def test_nothing_is_rated_where_no_batch_keeps_the_objectives():
    hurried = replace(QUESTION, ttft_s=1e-6, tpot_s=1e-6)
    assert [formulas.best(PROFILE, role, hurried) for role in Role] == [None] * 3


@pytest.mark.parametrize("demand_rps", [5.0, 21.0, 34.0])
def test_the_plan_costs_no_more_than_the_best_with_one_shape_a_role(demand_rps):
    inventory = {"h100": 64, "h200": 64}
    plan = ours.cheapest(WORKERS, demand_rps, inventory=inventory, usd_per_gpu_hour=PRICES)
    alike = [
        ours.cheapest_alike(
            WORKERS, demand_rps, inventory=inventory, usd_per_gpu_hour=PRICES, types=types
        )
        for types in (1, 2)
    ]
    usd = plan.fleet.usd_per_hour(PRICES)
    one, two = (fleet.usd_per_hour(PRICES) for fleet in alike)
    assert usd <= two <= one


def test_the_most_of_some_gpus_is_at_least_that_of_one_shape_a_role():
    by_worker = {r.worker: r for r in WORKERS}

    def rps(fleet):
        return served_rps([(count, by_worker[worker]) for count, worker in fleet.parts])

    most, alike = ours.most(WORKERS, gpus=32).fleet, ours.most_alike(WORKERS, 32)
    assert most.gpus <= 32
    assert rps(most) >= rps(alike)
