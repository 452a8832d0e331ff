"""aiconfigurator's own search, and its own estimate of any worker."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import pandas as pd

from benchmarks.aiconfigurator.formulas import DECODE_RATIO, PREFILL_RATIO
from benchmarks.aiconfigurator.question import ACCELERATORS, Fleet, Question, Rated, Worker
from planner.domain.errors import InputError
from planner.domain.fleet import Role
from profiler.imports.aiconfigurator import BACKEND, installed_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A best configuration of its search.

    Parameters
    ----------
    rps : float
        Requests/s of all GPUs asked for.
    """

    mode: str
    fleet: Fleet
    rps: float
    tokens_per_s_per_gpu: float
    ttft_s: float
    tpot_s: float


def require() -> str:
    """Its version.

    Raises
    ------
    InputError
        When the whole of it, search included, is not installed.
    """
    version = installed_version()
    with _quiet():
        try:
            import aiconfigurator.cli.api  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"aiconfigurator's search cannot be imported ({error}): "
                "run `make bench-aiconfigurator`"
            ) from error
    return version


def search(
    question: Question, accelerator: str, decode_accelerator: str | None = None
) -> list[Found]:
    """The best aggregated and the best disaggregated configuration that it finds."""
    with _quiet():
        from aiconfigurator.cli.api import cli_default

        result = cli_default(
            question.model_path,
            question.gpus,
            ACCELERATORS[accelerator],
            decode_system=ACCELERATORS[decode_accelerator or accelerator],
            backend=BACKEND,
            isl=question.isl,
            osl=question.osl,
            ttft=question.ttft_s * 1e3,
            tpot=question.tpot_s * 1e3,
        )
    return [
        _found(mode, table.iloc[0], question, accelerator, decode_accelerator or accelerator)
        for mode, table in result.best_configs.items()
        if len(table)
    ]


def _found(
    mode: str, row: pd.Series, question: Question, accelerator: str, decode_accelerator: str
) -> Found:
    times = question.gpus // int(row["num_total_gpus"])
    if mode == "disagg":
        parts = tuple(
            (
                times * int(row[f"({letter})workers"]),
                Worker(
                    role=role,
                    accelerator=name,
                    tp=int(row[f"({letter})tp"]),
                    batch=int(row[f"({letter})bs"]),
                ),
            )
            for letter, role, name in (
                ("p", Role.PREFILL, accelerator),
                ("d", Role.DECODE, decode_accelerator),
            )
        )
    else:
        worker = Worker(
            role=Role.AGGREGATED,
            accelerator=accelerator,
            tp=int(row["tp"]),
            batch=int(row["bs"]),
            prompts=int(row["ctx_tokens"]) // question.isl,
        )
        parts = ((times, worker),)
    return Found(
        mode=mode,
        fleet=Fleet(parts=parts),
        rps=times * float(row["seq/s"]),
        tokens_per_s_per_gpu=float(row["tokens/s/gpu_cluster"]),
        ttft_s=float(row["ttft"]) / 1e3,
        tpot_s=float(row["tpot"]) / 1e3,
    )


@cache
def rated_pair(question: Question, prefill: Worker, decode: Worker) -> tuple[Rated, Rated] | None:
    """Its estimate of a prefill and a decode worker, corrections included; None: out of memory."""
    with _quiet():
        from aiconfigurator.cli.api import cli_estimate

        try:
            answer = cli_estimate(
                question.model_path,
                ACCELERATORS[prefill.accelerator],
                mode="disagg",
                decode_system_name=ACCELERATORS[decode.accelerator],
                backend_name=BACKEND,
                isl=question.isl,
                osl=question.osl,
                prefill_tp_size=prefill.tp,
                prefill_batch_size=prefill.batch,
                prefill_num_workers=1,
                decode_tp_size=decode.tp,
                decode_batch_size=decode.batch,
                decode_num_workers=1,
            )
        except RuntimeError as error:
            if _is_out_of_memory(error):
                return None
            raise
    raw = answer.raw
    return (
        Rated(
            worker=prefill,
            rps=float(raw["(p)seq/s/worker"]) * PREFILL_RATIO,
            ttft_s=float(raw["ttft"]) / 1e3,
            tpot_s=0.0,
        ),
        Rated(
            worker=decode,
            rps=float(raw["(d)seq/s/worker"]) * DECODE_RATIO,
            ttft_s=0.0,
            tpot_s=float(raw["tpot"]) / 1e3,
        ),
    )


@cache
def rated_aggregated(question: Question, worker: Worker) -> Rated | None:
    """Its estimate of an aggregated worker; None: out of memory."""
    with _quiet():
        from aiconfigurator.cli.api import cli_estimate

        try:
            answer = cli_estimate(
                question.model_path,
                ACCELERATORS[worker.accelerator],
                mode="agg",
                backend_name=BACKEND,
                isl=question.isl,
                osl=question.osl,
                batch_size=worker.batch,
                ctx_tokens=worker.prompts * question.isl,
                tp_size=worker.tp,
            )
        except RuntimeError as error:
            if _is_out_of_memory(error):
                return None
            raise
    return Rated(
        worker=worker,
        rps=float(answer.raw["seq/s"]),
        ttft_s=answer.ttft / 1e3,
        tpot_s=answer.tpot / 1e3,
    )


def _is_out_of_memory(error: RuntimeError) -> bool:
    """It says so in words only."""
    return str(error).startswith("OOM")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without its log and its notice that the distribution moves to another name."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
