"""DistServe's public fits of step times, and its KV cache sizes.

`profiler-a100-80g.distserve.json` (and `.vllm.json`, vLLM of the time) of simdistserve: by model
and tensor parallel degree, coefficients in milliseconds of a prompt step a + b sum(l) + c sum(l^2)
and of a decode step a + b sum(context) + c batch, in two regimes of batches;
`max_num_tokens.csv`: KV tokens by model, tp and pp. Poolwise's tables hold the fits where they
bend and at many points between. Many fits of decode steps fall where the large batches begin: the
tables stay level there until the fit has caught up, and say so (`lifted`); between their lines they
are within 2 % of that.

References
----------
Zhong et al., *DistServe*, OSDI 2024, arXiv 2401.09670, appendix A; LLMServe/DistServe, simdistserve
(Apache-2.0).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from planner.domain.errors import ProfileError
from planner.domain.model import Dtype, Model
from planner.domain.profile import TimeTable
from profiler.imports.assembly import ASSUMED_ERROR_RATIO, Imported
from profiler.imports.reading import MOST_TOKENS, Fields, parse_json, read_text
from profiler.imports.rows import read_rows
from profiler.imports.tables import Floats, lifted

WHAT = "DistServe's fits (profiler-a100-80g.distserve.json)"
KV_FILE = "max_num_tokens.csv"
KV_COLUMNS = ("model", "tp", "pp", "max_num_tokens")
ACCELERATOR = "a100-80gb"
PUBLISHED_AT = datetime(2024, 7, 10, tzinfo=UTC)
"""OSDI 2024; the fits have no instants."""
LONGEST_TOKENS = 2_048
"""Of OPT: prompt plus answer."""
MOST_SEQUENCES = 1_024
"""`--decoding-max-batch-size` of their server."""
PROMPTS = np.array([1.0, *range(128, LONGEST_TOKENS + 1, 128)])
CONTEXTS = np.array([1.0, 4.0, 8.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, *PROMPTS[1:]])
MOST_MS = 1e6


def _opt(name: str, layers: int, heads: int, parameters: int) -> Model:
    return Model(
        name=name,
        layers=layers,
        kv_heads=heads,
        head_size=128,
        parameters=parameters,
        active_parameters=parameters,
        weight_dtype=Dtype.FLOAT16,
        kv_dtype=Dtype.FLOAT16,
        max_context_tokens=LONGEST_TOKENS,
        attention_heads=heads,
    )


SMALL, LARGE = "facebook/opt-13b", "facebook/opt-66b"
ARCHITECTURES = {
    SMALL: _opt(SMALL, layers=40, heads=40, parameters=13_000_000_000),
    LARGE: _opt(LARGE, layers=64, heads=72, parameters=66_000_000_000),
}
"""Zhang et al., *OPT*, arXiv 2205.01068, table 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Fitted coefficients a, b, c of one tensor parallel degree, milliseconds.

    Parameters
    ----------
    large_batch : float
        From so many sequences on a decode step takes `decode_large`.
    """

    prefill: tuple[float, float, float]
    decode_small: tuple[float, float, float]
    decode_large: tuple[float, float, float]
    large_batch: float

    def prefill_table(self, *, stages: int = 1) -> TimeTable:
        """One prompt, the first of so many pipeline stages."""
        a, b, c = self.prefill
        ms = (a + b * PROMPTS + c * PROMPTS**2) / stages
        return _table("new tokens", "cached tokens", PROMPTS, np.zeros(1), ms[:, None])

    def decode_table(self, *, stages: int = 1) -> TimeTable:
        """A decode step: exact, as it is bilinear within each regime.

        So many pipeline stages work on as many batches at once: a step at batch b is that of
        b / stages.
        """
        first = self.large_batch
        ends = [1.0, first - 1, first, float(MOST_SEQUENCES)]
        each = np.union1d(ends, [b for b in self._caught_up() if first < b < MOST_SEQUENCES])
        rows = [self.decode_ms(batch, CONTEXTS) for batch in each]
        return _table("sequences", "context tokens", stages * each, CONTEXTS, np.array(rows))

    def decode_ms(self, batch: float, context: Floats) -> Floats:
        """Milliseconds of a step of so many sequences, as fitted."""
        a, b, c = self.decode_small if batch < self.large_batch else self.decode_large
        return np.asarray(a + b * batch * context + c * batch)

    def _caught_up(self) -> Floats:
        """Batches around where large ones take as long as the last small one, by context.

        A lifted table bends there: it is level before.
        """
        a, b, c = self.decode_large
        per_sequence = np.maximum(b * CONTEXTS + c, 1e-12)
        level = (self.decode_ms(self.large_batch - 1, CONTEXTS) - a) / per_sequence
        return np.concatenate([np.floor(level), np.ceil(level)])


def _table(x_name: str, y_name: str, x: Floats, y: Floats, ms: Floats) -> TimeTable:
    return TimeTable(x_name=x_name, y_name=y_name, x=x, y=y, seconds=ms / 1e3)


def read_times(path: Path, model: str) -> dict[int, Times]:
    """The fits of a model by tensor parallel degree.

    Raises
    ------
    ProfileError
        When it is not this file, or has no fit of this model.
    """
    value = parse_json(read_text(path, what=WHAT), where=str(path), what=WHAT)
    models = Fields.of(value, where=str(path), what=WHAT)
    if not isinstance(models.values.get(model), Mapping):
        raise ProfileError(
            f"{path}: no fit of {model}; there are {', '.join(sorted(map(str, models.values)))}"
        )
    found: dict[int, Times] = {}
    of_model = models.inside(model)
    for tp in of_model.values:
        if not str(tp).isdecimal():
            raise of_model.error(str(tp), f"is no tensor parallel degree; give {WHAT}")
        found[int(tp)] = _times(of_model.inside(tp))
    return found


def read_kv_tokens(path: Path, model: str) -> dict[tuple[int, int], int]:
    """KV tokens of a model by (tp, pp).

    Raises
    ------
    ProfileError
        When a row is broken, with the line.
    """
    found: dict[tuple[int, int], int] = {}
    for row in read_rows(path, KV_COLUMNS, what=f"DistServe's {KV_FILE}"):
        if row.fields.text("model") == model:
            tp, pp, tokens = (
                int(row.fields.number(name, least=1, most=MOST_TOKENS)) for name in KV_COLUMNS[1:]
            )
            found[tp, pp] = tokens
    return found


def read(path: Path, *, model: str, tp: int, kv_path: Path | None = None) -> Imported:
    """What was fitted of one replica (pp 1).

    Parameters
    ----------
    kv_path : Path or None
        `max_num_tokens.csv`; None: beside the fits, where it is there.

    Raises
    ------
    ProfileError
        When there is no fit of it.
    """
    times = read_times(path, model)
    if tp not in times:
        raise ProfileError(
            f"{path}: no fit of {model} at tp {tp}; there is tp {', '.join(map(str, times))}"
        )
    kv_path = path.parent / KV_FILE if kv_path is None else kv_path
    kv_tokens = read_kv_tokens(kv_path, model).get((tp, 1)) if kv_path.is_file() else None
    try:
        prefill = lifted(times[tp].prefill_table(), "prefill")
        fitted = times[tp].decode_table()
    except ValueError as error:
        raise ProfileError(
            f"{path}: the fit of {model} at tp {tp} gives no times that can be ({error}): its "
            "coefficients are milliseconds, in the order a, b, c"
        ) from error
    decode = lifted(fitted, "decode step").table
    engine = "vLLM of 2024" if path.name.endswith(".vllm.json") else "DistServe"
    return Imported(
        prefill=prefill.table,
        decode_step=decode,
        source=f"DistServe, {path.name} (Zhong et al., OSDI 2024)",
        machine=f"{tp} x A100 SXM 80 GB",
        engine=f"{engine}, version not stated",
        measured_at=PUBLISHED_AT,
        points=0,
        held_tokens=LONGEST_TOKENS,
        longest_tokens=LONGEST_TOKENS,
        kv_capacity_tokens=kv_tokens,
        error_ratio=ASSUMED_ERROR_RATIO,
        notes=(
            "values of fits, not measurements: a + b l + c l^2 ms for a prompt, a + b x context x "
            "batch + c x batch ms for a decode step, below and from batch "
            f"{times[tp].large_batch:g}; points of the fits are not published (points: 0)",
            f"assumed: an error of {ASSUMED_ERROR_RATIO:.0%}: that of the fits is not published",
            f"decode step: the fit is taken up to {MOST_SEQUENCES:,} sequences, their server's "
            "limit; up to where it was measured is not published",
            "cached tokens are not in the fits: their effect is not known",
            "measured_at is the publication: the fits have no instants",
            *([f"KV cache as {kv_path.name} has it"] if kv_tokens else []),
            *prefill.notes,
            *_lifts(fitted, decode, times[tp].large_batch, kv_tokens),
        ),
    )


def _lifts(
    fitted: TimeTable, raised: TimeTable, large_batch: float, kv_tokens: int | None
) -> tuple[str, ...]:
    """How far the lifted table lies above the fit, and where; nothing where it is the fit."""
    rise = raised.seconds / fitted.seconds - 1
    if rise.max() <= 0:
        return ()
    held = fitted.x[:, None] * fitted.y <= (np.inf if kv_tokens is None else kv_tokens)
    last = fitted.x[np.any(rise > 0, axis=1)][-1]
    within = "" if kv_tokens is None else f"; where the KV cache holds them, {rise[held].max():.1%}"
    return (
        "decode step: lifted, as more work may not take less time: the fit falls at batch "
        f"{large_batch:g}; the table stays level from {large_batch - 1:g} until the fit has caught "
        f"up, behind {last:g} sequences at the latest (at most +{rise.max():.1%}{within})",
    )


def _times(fields: Fields) -> Times:
    return Times(
        prefill=_coefficients(fields, "prefill"),
        decode_small=_coefficients(fields, "decoding_smallbs"),
        decode_large=_coefficients(fields, "decoding_largebs"),
        large_batch=fields.number(
            "decoding_large_small_bs_threshold", least=3, most=MOST_SEQUENCES - 1
        ),
    )


def _coefficients(fields: Fields, name: str) -> tuple[float, float, float]:
    values = fields.list_of(name)
    if len(values) != 3:
        raise fields.error(name, f"has {len(values)} coefficients, not 3; give {WHAT}")
    found = Fields(
        where=f"{fields.where}: {name}",
        what=WHAT,
        values={str(i): value for i, value in enumerate(values)},
    )
    a, b, c = (found.number(str(i), least=-MOST_MS, most=MOST_MS) for i in range(3))
    return a, b, c
