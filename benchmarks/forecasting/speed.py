"""What one update of all models costs, with nothing else asked of the machine than usual."""

import time
from datetime import UTC, datetime, timedelta

import numpy as np

from forecaster.forecast import forecast
from forecaster.memory import Memory
from forecaster.panel import Panel, Span
from planner.domain.workload import ObservedWindow

HISTORY = 600
CLASSES = 3
SPANS = [Span(first=k, last=k) for k in range(1, 7)]


def one_deployment() -> dict:
    """A tick of three classes after 600 windows of history: all models, six windows ahead."""
    rng = np.random.default_rng(0)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    windows = [
        ObservedWindow(
            start_at=start + timedelta(minutes=5 * k),
            window_s=300.0,
            requests=int(n),
            input_tokens=int(n) * 1000,
            output_tokens=int(n) * 200,
            cached_tokens=int(n) * 100,
            request_class=name,
        )
        for name in ("chat", "code", "batch")[:CLASSES]
        for k, n in enumerate(rng.poisson(600 + 400 * np.sin(np.arange(HISTORY + 21) / 46)))
    ]
    memory = Memory()
    times = []
    for k in range(HISTORY, HISTORY + 21):
        made_at = start + timedelta(minutes=5 * k)
        past = [w for w in windows if w.end_at <= made_at]
        began = time.perf_counter()
        forecast(past, model="m", made_at=made_at, window_s=300.0, horizon_windows=6, memory=memory)
        times.append(time.perf_counter() - began)
    return {"first_s": times[0], "update_ms": 1e3 * float(np.median(times[1:]))}


def many_series(count: int = 1000) -> float:
    """Seconds for one update of so many series, six windows ahead."""
    rng = np.random.default_rng(0)
    panel = Panel(series=count, step_s=300.0, spans=SPANS, first_end_s=300.0)
    for _ in range(60):
        panel.observe(rng.gamma(4.0, 10.0, count))
    began = time.perf_counter()
    panel.observe(rng.gamma(4.0, 10.0, count))
    panel.outlook(SPANS)
    return time.perf_counter() - began
