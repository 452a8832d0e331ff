"""The public traces in the one form that both read."""

import json
import os
from pathlib import Path

import numpy as np

from benchmarks.dynamo.cases import TRACE_FILES, TraceName
from forecaster.readers import read_trace
from planner.domain.errors import InputError
from planner.domain.workload import Workload


def public_trace(
    name: TraceName, *, requests: int | None = None, distinct_arrivals: bool = False
) -> Workload:
    """A public trace, or its first requests, with arrivals in whole milliseconds.

    Without prefix blocks nothing counts as cached.

    Parameters
    ----------
    distinct_arrivals : bool
        Move requests that arrive in one millisecond apart, to the next free ones.

    Raises
    ------
    InputError
        When POOLWISE_DATA does not name the folder with the traces.
    """
    data = os.environ.get("POOLWISE_DATA")
    if data is None:
        raise InputError("POOLWISE_DATA is not set: it names the folder with the public traces")
    read = read_trace(Path(data) / "traces" / TRACE_FILES[name]).workload
    count = len(read) if requests is None else min(requests, len(read))
    kept = read.head(count, duration_s=read.duration_s)
    arrival_ms = np.rint(kept.arrival_offset_s * 1e3)
    if distinct_arrivals:
        place = np.arange(count)
        arrival_ms = np.maximum.accumulate(arrival_ms - place) + place
    return Workload(
        start_at=kept.start_at,
        arrival_offset_s=arrival_ms / 1e3,
        input_tokens=kept.input_tokens,
        output_tokens=kept.output_tokens,
        cached_tokens=np.zeros_like(kept.cached_tokens),
        request_class=kept.request_class,
        duration_s=max(kept.duration_s, arrival_ms[-1] / 1e3),
        prefix=kept.prefix,
    )


def write_mooncake(workload: Workload, path: Path, *, block_tokens: int = 512) -> None:
    """Write JSONL as Dynamo's mocker wants it: every prompt has an id for each block.

    Prompts without known blocks get ids of their own, so that nothing is shared; so does a
    last block that is not full, since the twin shares full blocks only.
    """
    fresh = 0
    if workload.prefix is not None and len(workload.prefix.block_ids):
        fresh = int(workload.prefix.block_ids.max()) + 1
    with path.open("w") as file:
        for i in range(len(workload)):
            tokens = int(workload.input_tokens[i])
            ids: list[int] = []
            if workload.prefix is not None:
                ids = workload.prefix.of(i)[: tokens // block_tokens].tolist()
            missing = -(-tokens // block_tokens) - len(ids)
            ids += range(fresh, fresh + missing)
            fresh += missing
            row = {
                "timestamp": round(float(workload.arrival_offset_s[i]) * 1e3),
                "input_length": tokens,
                "output_length": int(workload.output_tokens[i]),
                "hash_ids": ids,
            }
            file.write(json.dumps(row) + "\n")
