"""A week of the loop in simulated time: several deployments on one database, on a virtual clock.

Every deployment sees a load with a day and a night and random bursts, and ticks through the very
code that runs in production (`tick_once`): observe, forecast, plan, prove, guard, approve, apply.
Once a day the store is tidied. Checked: every tick came to a decision, memory does not grow after
the first days, no day adds more to the store than the one before did (as long as there is less
than is kept, every day adds as much), what is kept to replay decisions stays within its bound, and
a sample of decisions replays to the same answer.

    python -m benchmarks.bench_service_week --deployments 3 --days 7 --interval-s 3600
"""

import argparse
import gc
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
from sqlalchemy import create_engine, text

from planner.domain.fleet import Fleet, Pool, version_of
from planner.domain.spec import LoopMode, Spec
from planner.domain.workload import ObservedWindow
from planner.service.deployment import Deployment, StoreObserver
from planner.service.documents import windows_of
from planner.service.documents.history import WindowDocument
from planner.service.fleet.recorded import RecordedFleetActuator
from planner.service.loop.replaying import replay
from planner.service.loop.scheduler import tick_once
from planner.service.loop.tidying import tidy
from planner.service.spec.file import read_spec
from planner.service.store import Keeping, Store, open_store
from planner.service.store.decisions import REPLAYABLE
from planner.service.telemetry.metrics import Metrics

EXAMPLE = Path(__file__).parent.parent / "docs/examples/spec.yaml"
BEGIN = datetime(2026, 11, 2, tzinfo=UTC)
WINDOW_S = 300.0
MOST_GROWTH_RATIO = 0.10
"""Of memory, from the end of the second day to the end of the week."""
MOST_MORE_RATIO = 0.20
"""By so much a day may add more to the store than the second one did: pages are filled unevenly."""


@dataclass
class Clock:
    """The time that all deployments see."""

    now: datetime = BEGIN

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Site:
    """One deployment and the load that it sees."""

    deployment: Deployment
    rng: np.random.Generator
    base_rps: float
    outcomes: Counter[str] = field(default_factory=Counter)

    def load(self, start_at: datetime, windows: int) -> tuple[ObservedWindow, ...]:
        """Observed windows from an instant on: a day, a night, noise, now and then a burst."""
        documents = []
        for index in range(windows):
            at = start_at + timedelta(seconds=WINDOW_S * index)
            hour = at.hour + at.minute / 60
            rate = self.base_rps * (1.0 + 0.7 * np.sin(2 * np.pi * (hour - 9) / 24))
            burst = 3.0 if self.rng.random() < 0.01 else 1.0
            requests = int(self.rng.poisson(rate * burst * WINDOW_S))
            documents.append(
                WindowDocument(
                    start_at=at,
                    window_s=WINDOW_S,
                    requests=requests,
                    input_tokens=800 * requests,
                    output_tokens=60 * requests,
                )
            )
        return windows_of(documents, where="bench")


def site(spec: Spec, store: Store, clock: Clock, name: str, seed: int) -> Site:
    """A deployment of this name, as a dry run that begins with one replica a role."""
    spec = replace(spec, name=name)
    pools = tuple(Pool(shape=bounds.shape, ready=1) for bounds in spec.pools)
    store.put_fleet(
        name,
        Fleet(pools=pools, read_at=clock.now, version=version_of(pools)),
        received_at=clock.now,
        actor="bench",
    )
    model = spec.models[0].name
    deployment = Deployment(
        spec=spec,
        model=model,
        observer=StoreObserver(store=store, deployment=name, model=model),
        actuator=RecordedFleetActuator(store=store, spec=spec),
        store=store,
        clock=clock,
    )
    rng = np.random.default_rng(seed)
    return Site(deployment=deployment, rng=rng, base_rps=float(rng.uniform(2.0, 20.0)))


def follow(one: Site) -> None:
    """Whoever reports the fleet of a dry run brings it to the plan that was applied last."""
    deployment = one.deployment
    name, store = deployment.spec.name, deployment.store
    newest = store.plans(name, limit=1)
    if not newest or newest[0].approval.state.value != "applied":
        return
    planned = newest[0].plan.windows[0].pools
    pools = tuple(
        Pool(shape=p.shape, purchase_option=p.purchase_option, ready=p.replicas) for p in planned
    )
    now = deployment.clock()
    store.put_fleet(
        name,
        Fleet(pools=pools, read_at=now, version=version_of(pools)),
        received_at=now,
        actor="bench",
    )


def rss_mib() -> float:
    """Memory of this process that is in use now, MiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def database_mib(url: str) -> float:
    """Pages of the database that are in use, MiB."""
    engine = create_engine(url)
    with engine.connect() as connection:
        size, pages, free = (
            connection.execute(text(f"pragma {name}")).scalar_one()
            for name in ("page_size", "page_count", "freelist_count")
        )
    engine.dispose()
    return float(size * (pages - free) / 2**20)


def kept_bytes(url: str) -> dict[str, float]:
    """Bytes of what is kept to replay decisions, together and a decision."""
    engine = create_engine(url)
    with engine.connect() as connection:
        total, values = connection.execute(
            text("select coalesce(sum(length(content)), 0), count(*) from recorded_values")
        ).one()
        decisions = connection.execute(
            text("select count(distinct decision) from decision_inputs")
        ).scalar_one()
    engine.dispose()
    return {
        "recorded_bytes": float(total),
        "recorded_values": float(values),
        "replayable_decisions": float(decisions),
        "bytes_a_decision": total / max(decisions, 1),
    }


def run(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """The week; what was measured."""
    url = f"sqlite:///{folder / 'week.db'}"
    store, clock, metrics = open_store(url), Clock(), Metrics()
    spec = read_spec(arguments.spec)
    loop = replace(spec.loop, mode=LoopMode.AUTO, slow_interval_s=arguments.interval_s)
    ahead = replace(spec.forecast, window_s=WINDOW_S, horizon_windows=6)
    spec = replace(spec, loop=loop, forecast=ahead)
    sites = [
        site(spec, store, clock, f"site-{index}", arguments.seed + index)
        for index in range(arguments.deployments)
    ]
    ticks = int(arguments.days * 86_400 // arguments.interval_s)
    windows = int(arguments.interval_s // WINDOW_S)
    began_s, days, longest_s = time.monotonic(), [], 0.0
    for index in range(ticks):
        start_at = BEGIN + timedelta(seconds=arguments.interval_s * index)
        clock.now = start_at + timedelta(seconds=arguments.interval_s)
        for one in sites:
            name, model = one.deployment.spec.name, one.deployment.model
            seen = one.load(start_at, windows)
            store.add_windows(name, model, seen, received_at=clock.now, actor="bench")
            tick_began_s = time.monotonic()
            tick_once(one.deployment, metrics)
            longest_s = max(longest_s, time.monotonic() - tick_began_s)
            follow(one)
        if clock.now.hour == 0 and clock.now.minute == 0:
            for one in sites:
                tidy(one.deployment, Keeping(), now=clock.now, pause_s=0.0)
            days.append({"rss_mib": rss_mib(), "database_mib": database_mib(url)})
            told_day = f"day {len(days)}, {time.monotonic() - began_s:.0f} s: {days[-1]}"
            print(told_day, file=sys.stderr, flush=True)
    for one in sites:
        records = store.decisions(one.deployment.spec.name, limit=ticks + 1)
        one.outcomes.update(record.outcome for record in records)
    told = _told(sites, ticks, days) | kept_bytes(url)
    told |= _replayed(sites, ticks)
    told |= {"wall_s": time.monotonic() - began_s, "longest_tick_s": longest_s}
    store.close()
    return told


def _told(sites: list[Site], ticks: int, days: list[dict[str, float]]) -> dict[str, object]:
    outcomes: Counter[str] = sum((one.outcomes for one in sites), Counter())
    grown = days[-1]["rss_mib"] / days[1]["rss_mib"] - 1 if len(days) > 2 else 0.0
    return {
        "deployments": len(sites),
        "ticks_due": ticks * len(sites),
        "ticks_kept": sum(outcomes.values()),
        "outcomes": dict(outcomes),
        "failed": outcomes["failed"],
        "days": days,
        "memory_growth_ratio": grown,
        "store_growth_ratio": _growth(days),
        "bound_of_replayable_decisions": REPLAYABLE * len(sites),
    }


def _growth(days: list[dict[str, float]]) -> float:
    """By how much the last day added more to the store than the second one, as a ratio."""
    if len(days) < 3:
        return 0.0
    added = [b["database_mib"] - a["database_mib"] for a, b in pairwise(days)]
    return added[-1] / added[0] - 1


def _replayed(sites: list[Site], ticks: int) -> dict[str, object]:
    """A few decisions of every deployment, made once more."""
    same = asked = 0
    for one in sites:
        name, store = one.deployment.spec.name, one.deployment.store
        records = [r for r in store.decisions(name, limit=ticks) if r.plan_id]
        for record in records[:: max(len(records) // 3, 1)][:3]:
            _, parts = store.decision(name, record.decision_id)
            if parts:
                asked += 1
                same += replay(parts).same
    return {"replayed": asked, "replayed_the_same": same}


def main() -> int:
    """Run it; exit status 1 where a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", type=Path, default=EXAMPLE, help="its first model is planned")
    parser.add_argument("--deployments", type=int, default=20)
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--interval-s", type=float, default=7200.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told = run(arguments, Path(folder))
    sys.stdout.write(json.dumps(told, indent=2) + "\n")
    held = {
        "every tick was kept": told["ticks_kept"] == told["ticks_due"],
        "no tick failed": told["failed"] == 0,
        "memory is flat": float(str(told["memory_growth_ratio"])) <= MOST_GROWTH_RATIO,
        "the store grows no faster": float(str(told["store_growth_ratio"])) <= MOST_MORE_RATIO,
        "what is kept for replays is bounded": float(str(told["replayable_decisions"]))
        <= float(str(told["bound_of_replayable_decisions"])),
        "replays are the same": told["replayed"] == told["replayed_the_same"],
    }
    for name, holds in held.items():
        sys.stdout.write(f"{'holds ' if holds else 'BROKEN'} {name}\n")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
