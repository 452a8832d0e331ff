"""Planning problems of a size that no one decides by hand, made from a seed.

Twelve accelerator types with catalogue figures, three roles, three tensor parallel sizes, classes
of prompt and answer lengths, a day of windows. A replica's rate for a class is what the roofline of
its hardware gives (compute for prompts, memory bandwidth for answers, both after each other where
one replica does both), times noise, so that no two shapes are the same and few dominate. Prices are
typical on-demand ones. They make hard problems, not statements about hardware.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import PurchaseOption
from planner.optimize import Problem
from planner.optimize.inputs import (
    AcceleratorLimit,
    Floats,
    Option,
    PlanningWindow,
    PoolCapacity,
    Stream,
)

START = datetime(2026, 3, 2, 0, 0, tzinfo=UTC)
ROLES = (Role.PREFILL, Role.DECODE, Role.AGGREGATED)
PER_NODE = 8
NOISE = 0.12

WEIGHTS_BYTES = 16e9
KV_BYTES_PER_TOKEN = 131_072.0
ACTIVE_PARAMETERS = 8e9


@dataclass(frozen=True, slots=True)
class Card:
    """Dense BF16 flop/s, bytes/s, bytes of memory and USD an hour of one accelerator."""

    name: str
    flops: float
    bandwidth: float
    memory: float
    usd: float


CARDS = (
    Card("h100", 989e12, 3.35e12, 80e9, 3.9),
    Card("h200", 989e12, 4.8e12, 141e9, 4.9),
    Card("b200", 2250e12, 8.0e12, 180e9, 8.4),
    Card("a100-80", 312e12, 2.04e12, 80e9, 1.9),
    Card("a100-40", 312e12, 1.55e12, 40e9, 1.5),
    Card("l40s", 362e12, 0.864e12, 48e9, 1.05),
    Card("l4", 121e12, 0.3e12, 24e9, 0.45),
    Card("a10g", 70e12, 0.6e12, 24e9, 0.5),
    Card("mi300x", 1307e12, 5.3e12, 192e9, 5.6),
    Card("gh200", 989e12, 4.0e12, 96e9, 4.3),
    Card("rtx6000", 500e12, 1.79e12, 96e9, 1.8),
    Card("h20", 148e12, 4.0e12, 96e9, 2.2),
)

PROMPTS = (256, 1024, 4096, 12_288, 32_768, 98_304)
ANSWERS = (32, 96, 256, 640, 1500, 4000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a problem is to be."""

    accelerators: int = 12
    tps: tuple[int, ...] = (1, 2, 4)
    windows: int = 48
    classes: int = 36
    models: int = 1
    replicas: int = 250
    window_s: float = 1800.0


def large_problem(size: Size, seed: int) -> Problem:
    """A fleet problem of that size; `replicas` is about how many its plan has at the peak."""
    rng = np.random.default_rng(seed)
    cards = CARDS[: size.accelerators]
    streams, options, rates = [], [], []
    demand = []
    for m in range(size.models):
        mine = _options(cards, size, f"m{m}", rng)
        lengths = _lengths(size.classes)
        scale = float(rng.uniform(0.5, 2.0)) if size.models > 1 else 1.0
        rates.append(np.array([_rates(o, cards, lengths, scale, rng) for o in mine]).T)
        options += mine
        streams += [Stream(model=f"m{m}", bucket=f"{i}+{j}") for i, j in lengths]
        demand.append(_demand(size, lengths, rng))
    case = _problem(size, streams, options, np.concatenate(demand), _blocks(rates))
    wanted = size.replicas / _replicas_needed(case)
    return replace(case, demand_rps=case.demand_rps * wanted, accelerators=_limits(size, cards))


def _options(
    cards: tuple[Card, ...], size: Size, model: str, rng: np.random.Generator
) -> list[Option]:
    return [
        Option(
            shape=ReplicaShape(role=role, model=model, accelerator=card.name, tp=tp),
            purchase_option=PurchaseOption.ON_DEMAND,
            usd_per_hour=card.usd * tp,
            start_s=float(rng.uniform(60, 300)),
            drain_s=60.0,
            footprint=tp,
        )
        for card in cards
        for role in ROLES
        for tp in size.tps
    ]


def _lengths(classes: int) -> list[tuple[int, int]]:
    every = [(i, j) for i in PROMPTS for j in ANSWERS]
    return [every[n * len(every) // classes] for n in range(classes)]


def _rates(
    option: Option,
    cards: tuple[Card, ...],
    lengths: list[tuple[int, int]],
    scale: float,
    rng: np.random.Generator,
) -> Floats:
    """(classes,) requests/s of one replica; 0 where the class does not fit its memory."""
    card = next(c for c in cards if c.name == option.shape.accelerator)
    tp, role = option.shape.tp, option.shape.role
    isl = np.array([i for i, _ in lengths], dtype=np.float64)
    osl = np.array([j for _, j in lengths], dtype=np.float64)
    room = 0.9 * tp * card.memory - WEIGHTS_BYTES * scale
    batch = np.minimum(room / (KV_BYTES_PER_TOKEN * (isl + osl)), 256.0)
    efficiency = 0.92 ** np.log2(tp)
    prefill_s = 2 * ACTIVE_PARAMETERS * scale * isl / (0.5 * card.flops * tp * efficiency)
    step_s = WEIGHTS_BYTES * scale / (0.8 * card.bandwidth * tp * efficiency)
    kv_s = KV_BYTES_PER_TOKEN * (isl + osl / 2) / (0.7 * card.bandwidth * tp * efficiency)
    decode_s = osl * (step_s / np.maximum(batch, 1.0) + kv_s)
    busy = {
        Role.PREFILL: prefill_s,
        Role.DECODE: decode_s,
        Role.AGGREGATED: 1.15 * (prefill_s + decode_s),
    }[role]
    noise = rng.uniform(1 - NOISE, 1 + NOISE, len(lengths))
    fits = batch >= (1.0 if role is Role.PREFILL else 4.0)
    return np.where(fits, noise / busy, 0.0)


def _demand(size: Size, lengths: list[tuple[int, int]], rng: np.random.Generator) -> Floats:
    """(classes, windows) requests/s in some unit: a day's wave, a mix that moves with it."""
    hours = np.arange(size.windows) * size.window_s / 3600
    day = 1 + 0.55 * np.sin(2 * np.pi * (hours - 8) / 24)
    isl = np.array([i for i, _ in lengths], dtype=np.float64)
    share = rng.dirichlet(np.full(len(lengths), 1.5)) / isl**0.55
    phase = rng.uniform(0, 2 * np.pi, len(lengths))
    own = 1 + 0.35 * np.sin(2 * np.pi * hours[None, :] / 24 + phase[:, None])
    jitter = rng.lognormal(0.0, 0.05, (len(lengths), size.windows))
    return np.asarray(share[:, None] * own * jitter * day[None, :], dtype=np.float64)


def _blocks(rates: list[Floats]) -> tuple[Floats, Floats]:
    """`work` (streams, options) and one replica's rate (options,) of all models together."""
    streams, options = (sum(r.shape[axis] for r in rates) for axis in (0, 1))
    work, rate = np.full((streams, options), np.inf), np.zeros(options)
    k = o = 0
    for r in rates:
        best = r.max(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.where(r > 0, best / r, np.inf)
        work[k : k + r.shape[0], o : o + r.shape[1]] = part
        rate[o : o + r.shape[1]] = best
        k, o = k + r.shape[0], o + r.shape[1]
    return work, rate


def _problem(
    size: Size,
    streams: list[Stream],
    options: list[Option],
    demand: Floats,
    worth: tuple[Floats, Floats],
) -> Problem:
    work, rate = worth
    pools = [PoolCapacity.linear(float(r)) for r in rate]
    return Problem(
        streams=tuple(streams),
        options=tuple(options),
        windows=tuple(
            PlanningWindow(
                start_at=START + timedelta(seconds=t * size.window_s), window_s=size.window_s
            )
            for t in range(size.windows)
        ),
        demand_rps=demand,
        capacity={(o, t): pools[o] for o in range(len(options)) for t in range(size.windows)},
        work=work,
        accelerators=_limits(size, CARDS[: size.accelerators]),
        ordered_at=START,
    )


def _limits(size: Size, cards: tuple[Card, ...]) -> tuple[AcceleratorLimit, ...]:
    """Less of every type than the cheapest plan would like to have of its favourites."""
    each = max(int(2 * size.replicas / size.accelerators), PER_NODE) // PER_NODE * PER_NODE
    return tuple(AcceleratorLimit(name=c.name, inventory=each, per_node=PER_NODE) for c in cards)


def _replicas_needed(case: Problem) -> float:
    """Replicas at the peak if every class had the shapes that are cheapest for it."""
    rate = np.array([case.capacity[o, 0].at(1) for o in case.option_indices])
    usd = np.array([o.usd_per_hour for o in case.options])
    each = rate[None, :] / case.work
    needed = np.zeros(len(case.windows))
    for k, stream in enumerate(case.streams):
        for role in (Role.PREFILL, Role.DECODE):
            of = list(case.in_role(role, model=stream.model))
            best = of[int(np.argmax(each[k, of] / usd[of]))]
            needed += case.demand_rps[k] / each[k, best]
    return float(needed.max())
