"""What an engine that is launched here keeps in which format, and what bounds its speed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from planner.domain.errors import SpecError
from planner.domain.hardware import Catalogue
from planner.domain.model import Dtype
from planner.service.spec.model_config import (
    Overrides,
    computes_in,
    kv_bytes_per_token,
    model_of,
    read_model_config,
)
from profiler.engine_options import EngineOptions
from profiler.roofline import Roof, peak_of
from serving.workers.engine import ModelFiles, cpu_number_format


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchedEngine:
    """A model in the formats that an engine serves it in.

    Parameters
    ----------
    formats : (Dtype or None, Dtype or None)
        Of weights and KV cache; None: the model's own.
    kv_bytes_per_token : float
    """

    name: str
    config: Mapping[str, object]
    accelerator: str
    tp: int
    gpus: bool
    formats: tuple[Dtype | None, Dtype | None]
    kv_bytes_per_token: float

    def roof(self, catalogue: Catalogue) -> Roof | None:
        """What no step can be faster than; None where model or accelerator do not tell.

        Experts are not counted by `config.json`, nor are all quantized formats known there.
        """
        facts = catalogue.find(self.accelerator) if self.gpus else None
        weights, kv = self.formats
        overrides = Overrides(weight_dtype=weights, kv_dtype=kv)
        try:
            model = model_of(self.config, name=self.name, priority=0, overrides=overrides)
        except SpecError:
            return None
        peak = None if facts is None else peak_of(facts, model.weight_dtype)
        return None if peak is None else Roof(model=model, peak=peak, accelerators=self.tp)


def launched_engine(
    files: ModelFiles, options: EngineOptions, *, accelerator: str, tp: int, gpus: bool
) -> LaunchedEngine:
    """What an engine will do with a model; nothing is started.

    On a processor everything is in the format that this one computes in, as the accelerator's own.

    Raises
    ------
    SpecError
        When the model's `config.json` does not tell.
    """
    config = read_model_config(files.directory)
    own = computes_in(config)
    stated = (options.weight_dtype, options.kv_dtype) if gpus else (None, None)
    return LaunchedEngine(
        name=files.name,
        config=config,
        accelerator=accelerator,
        tp=tp,
        gpus=gpus,
        formats=(
            None if stated[0] is own else stated[0],
            None if stated[1] is own else stated[1],
        ),
        kv_bytes_per_token=(
            kv_bytes_per_token(config, options.kv_dtype)
            if gpus
            else launched_kv_bytes(files.directory, options)
        ),
    )


def launched_kv_bytes(directory: Path, options: EngineOptions | None = None) -> float:
    """KV bytes of one token of a model that is launched on this processor.

    Raises
    ------
    SpecError
        When its `config.json` does not tell.
    """
    asked = None if options is None else options.kv_dtype
    return kv_bytes_per_token(read_model_config(directory), asked or Dtype(cpu_number_format()))
