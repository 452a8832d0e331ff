"""One row per simulated request, as a Parquet file."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.domain.errors import InputError
from planner.service.answers.simulation import Simulated
from planner.service.whole_file import whole_file
from planner.simulate import Outcome, SimulationResult

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]

_NAMES = [outcome.name.lower() for outcome in Outcome]
_UNITS = {"_s": "seconds", "_tokens": "tokens"}


def check_parquet() -> None:
    """Refuse to begin when Parquet files cannot be written.

    Raises
    ------
    InputError
        When PyArrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise InputError(
            "--records needs PyArrow, which is not installed: `pip install poolwise[parquet]`"
        )


def write_records(seen: Simulated, path: Path) -> int:
    """Write every request whose run was kept, in order; the number of rows.

    The file is there whole or not at all. Instants are seconds from the start of their run;
    where something did not happen stands null. Pools are numbered as in the answer, their names
    are in the file's metadata under `poolwise`.
    """
    import pyarrow as pa
    from pyarrow import parquet

    tables = [
        pa.table(_columns(result, future, seen)) for future, result in enumerate(seen.results)
    ]
    table = pa.concat_tables(tables)
    fields = [
        field.with_metadata({"unit": unit})
        if (unit := next((u for end, u in _UNITS.items() if field.name.endswith(end)), None))
        else field
        for field in table.schema
    ]
    about = {
        "pools": [pool.shape.label for pool in seen.pools],
        "start_at": seen.scenario.workload.start_at.isoformat(),
        "router": seen.scenario.router.value,
    }
    schema = pa.schema(fields, metadata={"poolwise": json.dumps(about)})
    with whole_file(path) as unfinished:
        parquet.write_table(table.cast(schema), unfinished)
    return int(table.num_rows)


def _columns(result: SimulationResult, future: int, seen: Simulated) -> Mapping[str, "pa.Array"]:
    import pyarrow as pa

    count = len(result.outcome)
    outcome = pa.DictionaryArray.from_arrays(pa.array(result.outcome), pa.array(_NAMES))
    return {
        "future": pa.array(np.full(count, future, dtype=np.int32)),
        "request": pa.array(np.arange(count)),
        "request_class": pa.array(result.request_class.astype(object), pa.string()),
        "arrival_s": pa.array(result.arrival_s),
        "input_tokens": pa.array(result.input_tokens),
        "output_tokens": pa.array(result.output_tokens),
        "cached_tokens": pa.array(result.cached_tokens),
        "outcome": outcome.cast(pa.string()),
        "met": pa.array(result.met(seen.slos)),
        "ttft_s": _times(result.ttft_s),
        "tpot_s": _times(result.tpot_s),
        "e2e_s": _times(result.e2e_s),
        "prompt_started_s": _times(result.prompt_started_s),
        "prompt_done_s": _times(result.prompt_done_s),
        "decode_started_s": _times(result.decode_started_s),
        "prompt_pool": pa.array(result.prompt_group, mask=result.prompt_group < 0),
        "decode_pool": pa.array(result.decode_group, mask=result.decode_group < 0),
        "preemptions": pa.array(result.preemptions),
    }


def _times(seconds: Floats) -> "pa.Array":
    import pyarrow as pa

    return pa.array(np.ascontiguousarray(seconds), mask=~np.isfinite(seconds))
