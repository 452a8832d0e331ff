"""What became of the requests, and what the fleet cost; what one alone would meet by formulas."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.closed_loop.settings import Setting
from planner.autoscale import backtest
from planner.autoscale.backtest import Figures, Run
from planner.domain.workload import Workload

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def attainable(setting: Setting, workload: Workload) -> Flags:
    """(requests,) which would meet both objectives alone on an idle fleet."""
    timing, engine = setting.timing, setting.engine
    tokens = workload.input_tokens.astype(np.float64)
    answer = np.maximum(workload.output_tokens - 1, 0)
    prompt_s = (
        timing.prefill_base_s
        + timing.prefill_token_s * tokens
        + timing.prefill_token2_s * tokens**2
    )
    steps = -(-tokens // engine.max_num_batched_tokens)
    prompt_s += np.maximum(steps - 1, 0) * timing.prefill_base_s
    transfer_s = tokens * engine.kv_bytes_per_token / engine.transfer_bytes_per_s

    def step_s(context: Floats) -> Floats:
        return (
            timing.decode_base_s
            + timing.decode_sequence_s
            + timing.decode_context_token_s * context
        )

    ttft_s = prompt_s + transfer_s + step_s(tokens)
    tpot_s = step_s(tokens + answer / 2)
    return np.asarray((ttft_s <= setting.ttft_s) & (tpot_s <= setting.tpot_s), dtype=np.bool_)


def figures(run: Run, setting: Setting, workload: Workload, *, warm_s: float) -> Figures:
    """Count what arrived after `warm_s` seconds, and what was paid since then."""
    return backtest.figures(
        run,
        workload,
        slo=setting.slo(),
        able=attainable(setting, workload),
        accelerators=(setting.tp, setting.tp),
        warm_s=warm_s,
    )
