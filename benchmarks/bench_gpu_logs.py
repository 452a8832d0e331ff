"""The twin against logs of real vLLM engines on RTX PRO 6000 GPUs, three models.

    python -m benchmarks.bench_gpu_logs [--ablation]

A step-time model is fitted to the times of the first third of each log's requests; the twin then
replays all of them, and the later two thirds are compared. `naive` predicts that later requests
see what the first third saw. Where a bound is missed (`--ablation`: for every model) the same is
printed under other models of the engine, each fitted anew. Needs the logs below POOLWISE_DATA.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

from benchmarks.gpu_logs.logs import FOLDER, EngineLog, read_log
from benchmarks.gpu_logs.score import (
    BOUND_RATIO,
    BOUNDED,
    Prediction,
    composed_in_time,
    in_lockstep,
    without_experts,
)


def text_of(measure: str, value: float) -> str:
    return f"{value:,.0f} tok/s" if measure == "throughput" else f"{1e3 * value:,.1f} ms"


def lines_of(prediction: Prediction) -> Iterator[str]:
    """One row a measure."""
    model = prediction.deployment.model.split("/")[-1]
    for measure, real in prediction.real.items():
        naive = prediction.naive[measure]
        bounded = measure in BOUNDED
        verdict = ("met" if prediction.met(measure) else "MISSED") if bounded else ""
        yield (
            f"| {model} | {measure} | {text_of(measure, real)} "
            f"| {text_of(measure, prediction.predicted[measure])} "
            f"| {prediction.error_ratio(measure):+.1%} "
            f"| {f'{BOUND_RATIO:.0%}' if bounded else ''} | {verdict} "
            f"| {text_of(measure, naive)} | {naive / real - 1:+.1%} |"
        )


def print_scores(found: list[Prediction]) -> None:
    """The table of the requirement."""
    print("| model | measure | real | twin | error | bound | verdict | naive | its error |")
    print("|---|---|---|---|---|---|---|---|---|")
    for prediction in found:
        print("\n".join(lines_of(prediction)), flush=True)
    print(
        "\nFitted on the first third: seconds of base, experts, sequence, context token, prompt "
        "token, prompt token squared, before the first token"
    )
    for prediction in found:
        values = " ".join(f"{v:.2e}" for v in astuple(prediction.steps))
        print(f"- {prediction.deployment.model}: {values}")


def others_of(log: EngineLog) -> dict[str, Prediction]:
    """The same log under other models of its engines."""
    plain = log.deployment
    cases = {"steps composed in time": composed_in_time(plain)}
    if plain.expert_share > 0:
        bare, pair = without_experts(plain), in_lockstep(plain)
        cases |= {
            "no term for experts": bare,
            "one engine in lockstep": pair,
            "in time, no term for experts": composed_in_time(bare),
            "in time, one engine in lockstep": composed_in_time(pair),
        }
    return {name: Prediction(log=log, deployment=case) for name, case in cases.items()}


def print_ablation(found: list[Prediction]) -> None:
    """Errors under other models of the engines."""
    measures = (*BOUNDED, "TTFT p95", "throughput")
    print("\n| model | rules | " + " | ".join(measures) + " | before the first token |")
    print("|---|---|" + "---|" * (len(measures) + 1))
    for twin in found:
        model = twin.deployment.model.split("/")[-1]
        for name, p in ({"twin": twin} | others_of(twin.log)).items():
            errors = " | ".join(f"{p.error_ratio(m):+.1%}" for m in measures)
            first_ms = 1e3 * p.steps.first_token_s
            print(f"| {model} | {name} | {errors} | {first_ms:.1f} ms |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ablation", action="store_true", help="all models under other rules too")
    arguments = parser.parse_args()
    data = os.environ.get("POOLWISE_DATA")
    if not data:
        print("skipped: POOLWISE_DATA is not set; it names the folder with the logs")
        return 0
    folder = Path(data) / FOLDER
    if not folder.is_dir():
        print(f"skipped: POOLWISE_DATA has no {FOLDER}")
        return 0
    logs = [read_log(path) for path in sorted(folder.iterdir()) if path.is_dir()]
    found = [Prediction(log=log, deployment=log.deployment) for log in logs]
    print_scores(found)
    missed = [p for p in found if not all(p.met(measure) for measure in BOUNDED)]
    if missed or arguments.ablation:
        print_ablation(found if arguments.ablation else missed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
