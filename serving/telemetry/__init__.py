"""What engines, routers and exporters say of themselves, in seconds, tokens and bytes."""

from serving.telemetry.histogram import Histogram
from serving.telemetry.vllm_engine import (
    SCRAPE_TIMEOUT_S,
    EngineCounters,
    EngineReading,
    Traffic,
    TrafficReading,
    parse_engine,
    parse_traffic,
    read_engine,
    read_engine_async,
    read_traffic,
)

__all__ = [
    "SCRAPE_TIMEOUT_S",
    "EngineCounters",
    "EngineReading",
    "Histogram",
    "Traffic",
    "TrafficReading",
    "parse_engine",
    "parse_traffic",
    "read_engine",
    "read_engine_async",
    "read_traffic",
]
