"""The deployment really is disaggregated: prompts move, answers stay the same."""

import asyncio
from datetime import UTC, datetime

import pytest

from actuators.actuator import carry_out
from actuators.local import LocalActuator
from planner.domain.errors import RouterError, StalePlanError
from planner.domain.fleet import Fleet, Role
from planner.domain.hardware import PurchaseOption
from planner.domain.rollout import Diff, Step, StepKind
from planner.service.demo.describe import shape_in
from serving.fleet.deployment import LocalDeployment, WorkerState
from serving.telemetry import EngineCounters
from serving.traffic.load import Completion, LoadClient, Timing
from serving.traffic.prompts import PromptWriter, read_words
from serving.workers.launcher import Worker
from tests.end_to_end.conftest import MODEL

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

PREFILL, DECODE = shape_in(Role.PREFILL, MODEL), shape_in(Role.DECODE, MODEL)


def only(deployment: LocalDeployment, role: Role) -> Worker:
    (worker,) = deployment.workers(shape_in(role, MODEL), WorkerState.READY)
    return worker


def writer(deployment: LocalDeployment, seed: int) -> PromptWriter:
    return PromptWriter(words=read_words(deployment.site.model.directory), seed=seed)


def ask(url: str, prompts: list[str], output_tokens: int = 16) -> list[Timing]:
    """One request after the other: batches would round differently."""

    async def run() -> list[Timing]:
        client = LoadClient(url=url, model=MODEL.value)
        try:
            return [
                await client.send(Completion(prompt=p, output_tokens=output_tokens))
                for p in prompts
            ]
        finally:
            await client.close()

    return asyncio.run(run())


def counters(deployment: LocalDeployment, role: Role) -> EngineCounters:
    return deployment.reading(only(deployment, role)).counters


def test_decode_gets_every_prompt_by_transfer_and_computes_none(
    deployment: LocalDeployment,
) -> None:
    lengths = [40, 129, 300, 1000]
    written = writer(deployment, seed=1)
    before = counters(deployment, Role.DECODE)
    transfers = deployment.router.transfers()
    answers = ask(deployment.router.url, [written.unique(n, number=n) for n in lengths])
    moved = counters(deployment, Role.DECODE) - before
    assert [a.error for a in answers] == [""] * len(lengths)
    assert [a.input_tokens for a in answers] == lengths
    assert moved.prompt_tokens_transferred == sum(lengths)
    assert moved.prompt_tokens_computed == 0
    assert moved.transfer_bytes >= 4096 * sum(lengths)
    assert deployment.router.transfers() - transfers == len(lengths)


def test_greedy_answers_equal_the_monolithic_engines_token_for_token(
    deployment: LocalDeployment,
) -> None:
    written = writer(deployment, seed=2)
    prompts = [written.unique(n, number=n) for n in (5, 64, 127, 128, 129, 500, 900)]
    monolithic = ask(only(deployment, Role.DECODE).url, prompts)
    disaggregated = ask(deployment.router.url, prompts)
    assert [a.text for a in disaggregated] == [a.text for a in monolithic]
    assert all(a.text for a in monolithic)


def test_workers_swap_roles_without_a_restart(deployment: LocalDeployment) -> None:
    first, second = only(deployment, Role.PREFILL), only(deployment, Role.DECODE)
    deployment.drain(first)
    deployment.flip(second, PREFILL)
    deployment.assign(first, DECODE)
    deployment.route(first)
    answers = ask(deployment.router.url, [writer(deployment, seed=3).unique(400, number=1)])
    assert answers[0].error == ""
    assert only(deployment, Role.PREFILL) == second
    assert counters(deployment, Role.DECODE).transfers >= 1


def test_router_refuses_a_worker_that_is_not_there(
    deployment: LocalDeployment,
) -> None:
    with pytest.raises(RouterError, match="does not answer, it was not added"):
        deployment.router.add("http://127.0.0.1:9", Role.PREFILL)
    assert len(deployment.router.workers()) == 2


def step(index: int, kind: StepKind) -> Step:
    return Step(
        index=index,
        kind=kind,
        shape=PREFILL,
        purchase_option=PurchaseOption.ON_DEMAND,
        expected_s=1.0,
        expected_usd=0.0,
        reason="test",
    )


def prefill_counts(fleet: Fleet) -> tuple[int, int, int]:
    pool = fleet.pool(PREFILL, PurchaseOption.ON_DEMAND)
    return pool.ready, pool.starting, pool.draining


def test_actuator_adds_and_takes_away_a_worker(deployment: LocalDeployment) -> None:
    actuator = LocalActuator(deployment)
    before = actuator.read_fleet()
    grow = Diff(
        plan_id="grow",
        from_fleet=before,
        steps=(step(0, StepKind.START), step(1, StepKind.ROUTE)),
    )
    carry_out(actuator, grow)
    grown = actuator.read_fleet()
    assert prefill_counts(grown) == (2, 0, 0)
    with pytest.raises(StalePlanError, match="plan again"):
        carry_out(actuator, grow)
    shrink = Diff(
        plan_id="shrink",
        from_fleet=grown,
        steps=(step(0, StepKind.DRAIN), step(1, StepKind.STOP)),
    )
    carry_out(actuator, shrink)
    after = actuator.read_fleet()
    assert (prefill_counts(after), after.version) == ((1, 0, 0), before.version)
    assert after.read_at <= datetime.now(UTC)
