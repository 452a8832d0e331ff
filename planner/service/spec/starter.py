"""A first spec with comments, from a model, an accelerator and a target: `poolwise init`."""

import json
from dataclasses import dataclass
from pathlib import Path

from planner.capacity.memory import LEAST_KV_TOKENS, memory_fit
from planner.domain.errors import InputError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import AcceleratorFacts, Catalogue
from planner.domain.model import Model
from planner.domain.spec import Spec, TargetKind
from planner.optimize.shapes import degrees_for, divides_heads, heads_text
from planner.service.spec.file import spec_from
from planner.service.spec.model_config import Overrides, model_of, read_model_config
from planner.service.spec.problems import did_you_mean
from planner.service.spec.yaml_source import parse_yaml

USUAL_PER_NODE = 8
USUAL_NODES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is asked for; None: as is usual.

    Parameters
    ----------
    config : Path
        The model's config.json, or its folder.
    usd_per_gpu_hour : float
        What one accelerator costs, on demand.
    inventory, per_node : int or None
        Accelerators in all, and in one node.
    tp : int or None
        None: the smallest that holds the model.
    profiles : tuple of Path
        Measured ones; none: `--allow-estimates` goes without.
    """

    name: str
    model: str
    config: Path
    accelerator: str
    usd_per_gpu_hour: float
    target: TargetKind = TargetKind.DRY_RUN
    inventory: int | None = None
    per_node: int | None = None
    tp: int | None = None
    ttft_s: float = 2.0
    tpot_s: float = 0.05
    attainment_ratio: float = 0.95
    profiles: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """The text of a spec, and what it means."""

    text: str
    spec: Spec


def starter(draft: Draft, folder: Path, catalogue: Catalogue) -> Starter:
    """A spec that is valid as it stands, for a file in this folder.

    Raises
    ------
    InputError
        When the accelerator is not known, or its nodes do not hold the model.
    SpecError
        When the model's config or a profile is not usable.
    """
    facts = catalogue.find(draft.accelerator)
    if facts is None:
        known = [entry.name for entry in catalogue.entries]
        raise InputError(
            f"no accelerator {draft.accelerator!r} is in the catalogue"
            f"{did_you_mean(draft.accelerator, known)}; add yours to a file of your own "
            "(POOLWISE_CATALOGUE, docs/profiles.md)"
        )
    config = read_model_config(draft.config)
    model = model_of(config, name=draft.model, priority=0, overrides=Overrides())
    per_node = draft.per_node or facts.accelerators_per_node or USUAL_PER_NODE
    if draft.tp is not None and not divides_heads(model, draft.tp):
        raise InputError(
            f"tp {draft.tp} does not divide the {heads_text(model)} of {model.name}: give one of "
            + ", ".join(map(str, degrees_for(model, per_node)))
        )
    tp = draft.tp or least_tp(model, facts, per_node)
    text = _text(draft, facts, per_node=per_node, tp=tp, folder=folder)
    source = parse_yaml(text, where="the starter spec", what="a spec")
    return Starter(
        text=text, spec=spec_from(source, folder=folder, allow_estimates=not draft.profiles)
    )


def least_tp(model: Model, facts: AcceleratorFacts, per_node: int) -> int:
    """The smallest tensor parallel degree whose memory holds the model.

    Raises
    ------
    InputError
        When not even a whole node does.
    """
    fits = []
    for tp in degrees_for(model, per_node):
        shape = ReplicaShape(role=Role.DECODE, model=model.name, accelerator=facts.name, tp=tp)
        fits.append(memory_fit(model, shape, facts.memory_bytes))
        if fits[-1].missing_bytes(LEAST_KV_TOKENS) == 0:
            return tp
    raise InputError(
        f"{model.name} does not fit into a node of {per_node} {facts.name}: at tp "
        f"{degrees_for(model, per_node)[-1]} {fits[-1].text}; name accelerators with more memory, "
        "or a config.json with smaller weights"
    )


def _text(draft: Draft, facts: AcceleratorFacts, *, per_node: int, tp: int, folder: Path) -> str:
    inventory = USUAL_NODES * per_node if draft.inventory is None else draft.inventory
    config = _quoted(_from(folder, draft.config))
    profiles = ", ".join(_quoted(_from(folder, path)) for path in draft.profiles)
    model, accelerator = _quoted(draft.model), _quoted(facts.name)
    pools = "\n".join(
        f"- {{model: {model}, role: {role}, accelerator: {accelerator}, tp: {tp}}}"
        for role in (Role.PREFILL, Role.DECODE)
    )
    return f"""\
# A first spec for Poolwise. Times are seconds, sizes tokens or bytes, money USD.
# Every field: `poolwise validate --schema`. Words of the field: `poolwise explain TERM`.
apiVersion: poolwise/v1
name: {draft.name}

# The model as it is served: `config` is its config.json, a path counted from this file's folder.
models:
- name: {model}
  config: {config}

# What every request is promised, and for which share of all that arrive. Put in your own promise.
slos:
- model: {model}
  ttft_s: {draft.ttft_s:g}  # time to first token
  tpot_s: {draft.tpot_s:g}  # mean time per output token after the first
  attainment_ratio: {draft.attainment_ratio:g}  # of all arrivals

# What may be had, and what you pay for it.
accelerators:
- name: {accelerator}
  per_node: {per_node}  # accelerators in one machine
  inventory: {inventory}  # in all
  usd_per_gpu_hour: {{on_demand: {draft.usd_per_gpu_hour:g}}}

# What replicas were measured to do. Without a profile of a pool, give --allow-estimates: rough
# figures from the accelerator's peaks, labelled so in every answer, and never applied.
# `poolwise profile run` measures your engine.
profiles: [{profiles}]

# Replicas that may be planned, as many as the inventory has (min_replicas, max_replicas: bounds).
# tp: accelerators that share a replica. Add `role: aggregated` to compare with prefill and decode
# together.
pools:
{pools}

# How far is planned ahead, in windows of so many seconds.
forecast: {{window_s: 300, horizon_windows: 6}}

# Where plans are applied. dry_run shows them only.
{_target(draft.target)}

# advise: plans only. approve: asks a person before anything moves. auto: what guards allow.
loop: {{mode: advise, slow_interval_s: 300}}
"""


def _target(kind: TargetKind) -> str:
    if kind is not TargetKind.KUBERNETES:
        return f"target: {{kind: {kind}}}"
    return """\
target:
  kind: kubernetes
  namespace: default
  # Objects of your pools are found by these labels; docs/kubernetes.md says which labels tell role,
  # model and accelerator. Or name them one by one under `objects`.
  selector: app.kubernetes.io/part-of=poolwise"""


def _from(folder: Path, path: Path) -> str:
    """A path as the spec's folder sees it; absolute where it lies elsewhere."""
    whole = path.absolute()
    return str(
        whole.relative_to(folder.absolute()) if folder.absolute() in whole.parents else whole
    )


def _quoted(text: str) -> str:
    """As YAML takes any text."""
    return json.dumps(text)
