"""A vLLM plugin that keeps idle engines from burning a small machine's processor.

Runs inside the engine's environment (entry point `vllm.general_plugins`), never in Poolwise.
It changes three waits, each measured on two shared cores with vLLM 0.32 and NIXL 1.5:

- NIXL's progress thread polls without a pause, 50-70 % of a core per idle worker: 2 ms.
- vLLM's shared-memory broadcast spins on `sched_yield`: 0.3 ms naps instead.
- Mooncake's connector asks for an accelerator index even where there is none: 0.
"""

import os
import time

_NAP_S = 0.0003
_PROGRESS_DELAY_US = 2000


def register() -> None:
    """Apply the changes; vLLM calls this in each of its processes."""
    import torch
    from vllm.distributed.device_communicators import shm_broadcast

    shm_broadcast.sched_yield = lambda: time.sleep(_NAP_S)
    if not torch.accelerator.is_available():
        torch.accelerator.current_device_index = lambda: 0
    try:
        from nixl import _api
    except ImportError:
        return
    _calm_nixl(_api.nixlBind)


def _calm_nixl(bindings) -> None:
    if getattr(bindings, "poolwise_calm", False):
        return
    make_agent = bindings.nixlAgent
    delay_us = int(os.environ.get("POOLWISE_NIXL_PROGRESS_DELAY_US", _PROGRESS_DELAY_US))

    def make_calm_agent(name, config):
        config.pthrDelay = delay_us
        return make_agent(name, config)

    bindings.nixlAgent = make_calm_agent
    bindings.poolwise_calm = True
