"""NVIDIA Dynamo's four load predictors, run where they live.

    .predictors/bin/python benchmarks/forecasting/theirs.py FOLDER

Reads `series.json` in the folder, writes `theirs.json` there. The predictors are the unaltered
classes of the `ai-dynamo` wheel (`dynamo/planner/core/load/predictors.py`), with the planner's
default settings; only the two modules that the file imports besides forecasting packages, its
configuration's type and its logging, are left out. They answer one step ahead only.
"""

import importlib.util
import json
import logging
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

DEFAULTS = {
    "load_predictor_log1p": False,
    "prophet_window_size": 50,
    "kalman_q_level": 1.0,
    "kalman_q_trend": 0.1,
    "kalman_r": 10.0,
    "kalman_min_points": 5,
}
"""`SLAPlannerDefaults` of ai-dynamo 1.6.1."""


def predictors() -> dict:
    """The classes by name."""
    for name, members in (
        ("dynamo.planner.config.planner_config", {"PlannerConfig": object}),
        ("dynamo.runtime.logging", {"configure_dynamo_logging": lambda: None}),
    ):
        module = types.ModuleType(name)
        vars(module).update(members)
        sys.modules[name] = module
    wheel = next(p for p in map(Path, sys.path) if (p / "dynamo" / "planner").is_dir())
    file = wheel / "dynamo/planner/core/load/predictors.py"
    spec = importlib.util.spec_from_file_location("dynamo_predictors", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LOAD_PREDICTORS


def run(make: Callable, counts: list, origins: list[int], step_s: float) -> list:
    """Forecasts at the origins; None where the predictor fails, as its planner has none then."""
    predictor = make(SimpleNamespace(throughput_adjustment_interval_seconds=step_s, **DEFAULTS))
    wanted, answers = set(origins), {}
    for step, count in enumerate(counts):
        if count is not None:
            predictor.add_data_point(count)
        if step in wanted:
            try:
                answers[step] = float(predictor.predict_next())
            except Exception as error:
                logging.warning("no forecast: %r", error)
                answers[step] = None
    return [answers[step] for step in origins]


def main() -> None:
    """All series of the folder's file."""
    logging.disable(logging.WARNING)
    folder = Path(sys.argv[1])
    classes = predictors()
    out = []
    series = json.loads((folder / "series.json").read_text())
    for index, one in enumerate(series):
        answers = {}
        for name, make in classes.items():
            began = time.perf_counter()
            answers[name] = run(make, one["counts"], one["origins"], one["step_s"])
            answers[f"{name}_s"] = time.perf_counter() - began
        out.append(answers)
        print(f"  {index + 1} of {len(series)}: {one['name']}", flush=True)
    (folder / "theirs.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main()
