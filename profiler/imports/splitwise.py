"""Splitwise's public measurements: `perf_model.csv` of splitwise-sim.

Columns `model, hardware, prompt_size, batch_size, token_size, prompt_time, token_time,
tensor_parallel` (and powers, which a profile has no place for); sizes in tokens, times in
milliseconds, every setting repeated 5 times. Prompts of a batch of one make the prefill table,
decode steps of prompts of 512 tokens the decode table, each point the median of its repeats.

Two groups of rows are refused: `h100-80gb-pcap` was scaled from the H100, not measured; batch 64 of
llama2-70b on two accelerators takes less than batch 8, so it did not run as told.

References
----------
Patel et al., *Splitwise*, ISCA 2024, arXiv 2311.18677; Mutinifni/splitwise-sim (MIT).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from planner.domain.errors import ProfileError
from planner.domain.model import Model
from profiler.imports.assembly import Imported
from profiler.imports.reading import LONGEST_PROMPT_S, LONGEST_STEP_S, MOST_TOKENS, MS
from profiler.imports.rows import Row, read_rows
from profiler.imports.tables import Point, decode_table, prefill_table

WHAT = "Splitwise's perf_model.csv (Mutinifni/splitwise-sim)"
COLUMNS = (
    "model",
    "hardware",
    "prompt_size",
    "batch_size",
    "token_size",
    "prompt_time",
    "token_time",
    "tensor_parallel",
)
PUBLISHED_AT = datetime(2024, 6, 29, tzinfo=UTC)
"""ISCA 2024; the table has no instants."""
DECODE_PROMPT_TOKENS = 512
"""The only prompts that were measured in batches."""
DECODE_CONTEXT_TOKENS = 576
"""Of those prompts and half of their 128 tokens."""
MEMORY_BYTES = 80e9
SCALED = "h100-80gb-pcap"
ARCHITECTURES = {
    "llama2-70b": Model(
        name="llama2-70b",
        layers=80,
        kv_heads=8,
        head_size=128,
        parameters=68_976_648_192,
        active_parameters=68_976_648_192,
        max_context_tokens=4_096,
        attention_heads=64,
    ),
    "bloom-176b": Model(
        name="bloom-176b",
        layers=70,
        kv_heads=112,
        head_size=128,
        parameters=176_247_271_424,
        active_parameters=176_247_271_424,
        max_context_tokens=2_048,
        attention_heads=112,
    ),
}
"""meta-llama/Llama-2-70b-hf and bigscience/bloom, `config.json` and model cards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One row: a batch of equal prompts and their answers.

    Parameters
    ----------
    prompt_s : float
        Of the whole batch.
    token_s : float
        One decode step, mean over the answer.
    """

    line: int
    model: str
    accelerator: str
    tp: int
    prompt_tokens: int
    sequences: int
    answer_tokens: int
    prompt_s: float
    token_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The rows that may be used, and how many were refused for what.

    Parameters
    ----------
    refused : tuple of str
        Reasons, each with the number of its rows.
    """

    path: Path
    rows: tuple[Measured, ...]
    refused: tuple[str, ...]

    def of(self, *, model: str, accelerator: str, tp: int) -> tuple[Measured, ...]:
        """The rows of one replica.

        Raises
        ------
        ProfileError
            When there are none, with the replicas that there are.
        """
        own = [r for r in self.rows if (r.model, r.accelerator, r.tp) == (model, accelerator, tp)]
        if own:
            return tuple(own)
        if accelerator == SCALED:
            raise ProfileError(
                f"{self.path}: every row of {SCALED} was scaled from h100-80gb, not measured: "
                "import h100-80gb"
            )
        there = sorted({(r.model, r.accelerator, r.tp) for r in self.rows})
        named = "; ".join(f"{m} on {a}, tp {t}" for m, a, t in there)
        raise ProfileError(
            f"{self.path}: nothing of {model} on {accelerator}, tp {tp}; there are {named}"
        )


def read_table(path: Path) -> Table:
    """Every usable row, in seconds.

    Raises
    ------
    ProfileError
        When it is not this table, or a value makes no sense; with the line.
    """
    rows: list[Measured] = []
    refused: Counter[str] = Counter()
    for row in read_rows(path, COLUMNS, what=WHAT):
        measured = _measured(row)
        reason = _refusal(measured)
        if reason:
            refused[reason] += 1
        else:
            rows.append(measured)
    if not rows:
        raise ProfileError(f"{path}: no row is left: {'; '.join(refused)}")
    return Table(
        path=path,
        rows=tuple(rows),
        refused=tuple(f"refused: {count} rows {reason}" for reason, count in refused.items()),
    )


def imported_from(table: Table, *, model: str, accelerator: str, tp: int) -> Imported:
    """What was measured of one replica.

    Raises
    ------
    ProfileError
        When it is not in the table.
    """
    own = table.of(model=model, accelerator=accelerator, tp=tp)
    prompts, steps = alone(own), in_batches(own)
    for rows, kind in (
        (prompts, "one prompt at a time (batch_size 1), so that the time of a prompt is not known"),
        (steps, f"prompts of {DECODE_PROMPT_TOKENS} tokens, from which decode steps are taken"),
    ):
        if not rows:
            raise ProfileError(
                f"{table.path}: no row of {model}, {accelerator}, tp {tp} has {kind}"
            )
    prefill = prefill_table([Point(x=r.prompt_tokens, y=0, seconds=r.prompt_s) for r in prompts])
    decode = decode_table(
        [Point(x=r.sequences, y=DECODE_CONTEXT_TOKENS, seconds=r.token_s) for r in steps]
    )
    prompt_errors = [r.prompt_s / float(prefill.table.at(r.prompt_tokens, 0)) for r in prompts]
    step_errors = [r.token_s / float(decode.table.at(r.sequences, 0)) for r in steps]
    return Imported(
        prefill=prefill.table,
        decode_step=decode.table,
        source="Splitwise, perf_model.csv (Patel et al., ISCA 2024)",
        machine=f"{tp} x {accelerator}",
        engine="vLLM, version not stated",
        measured_at=PUBLISHED_AT,
        points=len({*prompts, *steps}),
        held_tokens=max(r.sequences * (r.prompt_tokens + r.answer_tokens) for r in own),
        longest_tokens=max(r.prompt_tokens + r.answer_tokens for r in own),
        notes=(
            *table.refused,
            *_unused(own),
            f"each point is the median of its repeats; single ones lie {_off(prompt_errors)} from "
            f"it (prefill) and {_off(step_errors)} (decode step)",
            "decode step: measured at contexts of 512 to 640 tokens (one sequence: to 8,704), "
            "counted as alike at every context",
            "cached tokens were not measured: their effect is not known",
            "measured_at is the publication: the table has no instants",
            *prefill.notes,
            *decode.notes,
        ),
    )


def alone(rows: Sequence[Measured]) -> list[Measured]:
    """Rows of one prompt at a time: those of the prefill table."""
    return [r for r in rows if r.sequences == 1]


def in_batches(rows: Sequence[Measured]) -> list[Measured]:
    """Rows with the prompts that were measured in batches: those of the decode table."""
    return [r for r in rows if r.prompt_tokens == DECODE_PROMPT_TOKENS]


def _measured(row: Row) -> Measured:
    fields = row.fields

    def count(name: str) -> int:
        value = fields.number(name, least=1, most=MOST_TOKENS)
        if value != int(value):
            raise fields.error(name, f"{value:g} is no whole number")
        return int(value)

    def named(name: str) -> str:
        value = fields.text(name)
        if value is None:
            raise fields.error(name, "is no name")
        return value

    return Measured(
        line=row.line,
        model=named("model"),
        accelerator=named("hardware"),
        tp=count("tensor_parallel"),
        prompt_tokens=count("prompt_size"),
        sequences=count("batch_size"),
        answer_tokens=count("token_size"),
        prompt_s=fields.seconds("prompt_time", MS, most_s=LONGEST_PROMPT_S),
        token_s=fields.seconds("token_time", MS, most_s=LONGEST_STEP_S),
    )


def _refusal(row: Measured) -> str:
    """Why a row is not used; empty: it is."""
    if row.accelerator == SCALED:
        return f"of {SCALED}: scaled from h100-80gb by power, not measured"
    if (row.model, row.tp, row.sequences) == ("llama2-70b", 2, 64):
        return (
            "of llama2-70b, tp 2, batch 64: invalid, its prompts take less than those of batch 8: "
            "it did not run as told"
        )
    return ""


def _unused(own: Sequence[Measured]) -> tuple[str, ...]:
    """Values of accepted rows for which a profile has no place."""
    notes = []
    batches = [r for r in own if r.sequences > 1]
    if batches:
        notes.append(
            f"not used: prompt_time of {len(batches)} rows with several prompts at once: prefill "
            "holds one prompt at a time"
        )
    other = [r for r in own if r.prompt_tokens != DECODE_PROMPT_TOKENS]
    if other:
        times = [r.token_s * 1e3 for r in other]
        notes.append(
            f"not used: token_time of {len(other)} rows with other prompts than 512 tokens: one "
            f"sequence only was measured at those contexts ({min(times):.1f} to {max(times):.1f} "
            f"ms, prompts of {min(r.prompt_tokens for r in other):,} to "
            f"{max(r.prompt_tokens for r in other):,} tokens)"
        )
    return tuple(notes)


def _off(ratios: Sequence[float]) -> str:
    """How far from 1 these are, for people."""
    errors = np.abs(np.array(ratios) - 1)
    return f"{np.median(errors):.1%} (median), at most {errors.max():.1%},"
