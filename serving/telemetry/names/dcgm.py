"""NVIDIA's dcgm-exporter: etc/default-counters.csv and etc/dcp-metrics-included.csv of 4.x."""

from serving.telemetry.quantities import Metric, Names, Quantity, Series, named

PREFIXES = ("DCGM_FI_",)

_USED = Series("DCGM_FI_DEV_FB_USED")
_FREE = Series("DCGM_FI_DEV_FB_FREE")
_RESERVED = Series("DCGM_FI_DEV_FB_RESERVED")

BLANK = 2.0**47
"""DCGM's marks for values that a GPU does not have lie there and above (dcgm_structs.h)."""

NAMES: Names = {
    Quantity.ACCELERATOR_RATIO: (
        *named("DCGM_FI_PROF_GR_ENGINE_ACTIVE"),
        *named("DCGM_FI_DEV_GPU_UTIL", scale=0.01),
    ),
    Quantity.MEMORY_USED_RATIO: (
        Metric(of=(_USED,), over=(_USED, _FREE, _RESERVED)),
        Metric(of=(_USED,), over=(_USED, _FREE)),
    ),
    Quantity.MEMORY_BANDWIDTH_RATIO: named("DCGM_FI_PROF_DRAM_ACTIVE"),
    Quantity.TENSOR_RATIO: named("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"),
    Quantity.POWER_W: named("DCGM_FI_DEV_POWER_USAGE"),
}
