"""Fitting step times to logs: what is known comes back, and real GPUs are predicted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu_logs import fit
from benchmarks.gpu_logs.fit import fit_steps
from benchmarks.gpu_logs.logs import (
    FOLDER,
    Deployment,
    EngineLog,
    Seen,
    fitted_requests,
    read_log,
)
from benchmarks.gpu_logs.replay import replay as seen_by_twin
from benchmarks.gpu_logs.score import BOUNDED, Prediction, composed_in_time
from benchmarks.gpu_logs.steps import StepTimes
from planner.domain.profile import EngineLimits
from planner.domain.workload import Workload
from tests.fakes.workloads import poisson_workload

TRUTH = StepTimes(
    base_s=0.012,
    expert_s=0.0,
    sequence_s=1e-4,
    context_token_s=2e-8,
    prompt_token_s=4e-5,
    prompt_token2_s=0.0,  # the twin's table is then exact
    first_token_s=0.004,
)
ENGINE = Deployment(
    model="made up",
    accelerator="made up",
    engine="made up",
    tp=1,
    engines=1,
    expert_share=0.0,
    limits=EngineLimits(
        kv_capacity_tokens=1_000_000,
        kv_bytes_per_token=1e5,
        max_num_seqs=24,
        max_num_batched_tokens=2_048,
        max_model_len=32_768,
        async_scheduling=True,
    ),
)


@pytest.fixture(scope="module")
def workload() -> Workload:
    drawn = poisson_workload(requests=240, rate_rps=9.0, isl=800, osl=200, seed=3)
    return replace(drawn, output_tokens=np.maximum(drawn.output_tokens, 20))


def test_known_step_times_are_recovered_from_the_first_third(workload: Workload) -> None:
    seen = seen_by_twin(ENGINE, TRUTH, workload).of(slice(0, fitted_requests(len(workload))))
    found = fit_steps(ENGINE, workload, seen)
    batch, context = np.array([12.0, 24.0]), 900.0  # where the log dwells
    np.testing.assert_allclose(
        found.decode_s(batch, context, 0.0), TRUTH.decode_s(batch, context, 0.0), rtol=0.1
    )
    np.testing.assert_allclose(found.prefill_s(800.0), TRUTH.prefill_s(800.0), rtol=0.1)


def test_a_step_composed_ahead_costs_a_newcomer_about_a_step(workload: Workload) -> None:
    engines = (ENGINE, composed_in_time(ENGINE))
    ahead, in_time = (seen_by_twin(engine, TRUTH, workload) for engine in engines)
    assert np.median(ahead.ttft_s - in_time.ttft_s) > 0.5 * TRUTH.base_s


@pytest.mark.parametrize("model", ["Llama-3.1-8B", "Qwen3-32B", "Qwen3-30B-A3B-Instruct-2507"])
def test_the_later_requests_of_a_real_gpu_are_predicted_from_the_first_third(
    poolwise_data: Path, model: str
) -> None:
    log = read_log(poolwise_data / FOLDER / model)
    prediction = Prediction(log=log, deployment=log.deployment)
    errors = {m: prediction.error_ratio(m) for m in BOUNDED}
    assert all(prediction.met(m) for m in BOUNDED), errors


def test_no_time_of_a_later_request_enters_the_fit(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = seen_by_twin(ENGINE, TRUTH, workload)
    log = EngineLog(deployment=ENGINE, workload=workload, seen=seen)
    later = np.arange(len(workload)) >= log.fitted
    spoiled = Seen(
        ttft_s=np.where(later, 1e6, seen.ttft_s),
        tpot_s=np.where(later, 1e6, seen.tpot_s),
        end_s=np.where(later, 1e6, seen.end_s),
    )
    monkeypatch.setattr(fit, "ROUNDS", 1)
    monkeypatch.setattr(fit, "EVALUATIONS", 2)
    first, second = (
        Prediction(log=replace(log, seen=s), deployment=ENGINE) for s in (seen, spoiled)
    )
    assert first.steps == second.steps
