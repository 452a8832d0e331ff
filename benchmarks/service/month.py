"""A month of a store, written by the service's own calls on a clock that jumps: how large it gets.

Every minute of each deployment: a window of each of two classes and a decision; every ten minutes
a forecast, a plan that the next one supersedes, and 100 requests of a gate. Once an hour it is
tidied, as the leader does. A shorter time than a month is a month with everything kept so much
shorter.
"""

import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from benchmarks.service.result import Result, Say
from planner.domain.forecast import Forecast
from planner.rollout import supersede
from planner.service.answers.planning import expected_demand
from planner.service.spec.file import read_spec
from planner.service.store import DecisionRecord, Keeping, Store, forecasts, open_store
from planner.service.store.retention import DAY_S
from tests.planner.service.examples import NOON, write_spec
from tests.planner.service.fleet.test_gate import RECORD
from tests.planner.service.plans import example_record
from tests.planner.service.store.test_retention import minute

STEP = timedelta(minutes=10)
MOST_GROWTH = 1.05
"""Size at the end over that at two thirds, when everything is being cut. The audit log grows."""
CLASSES = ("chat", "batch")


@dataclass
class Month:
    """What is kept for how long, and what was measured.

    Parameters
    ----------
    share : float
        Of a month, that is simulated.
    """

    store: Store
    path: Path
    share: float
    forecast: Forecast
    sizes: list[tuple[float, int]] = field(default_factory=list)
    longest_s: float = 0.0
    tidied_s: float = 0.0

    @property
    def keeping(self) -> Keeping:
        """A month is long beside each of these."""
        days = {"windows_s": 7, "hours_s": 18, "decisions_s": 14, "plans_s": 7, "rollouts_s": 18}
        return Keeping(**{name: self.share * count * DAY_S for name, count in days.items()})

    def ten_minutes(self, name: str, now: datetime) -> None:
        store = self.store
        windows = [
            minute(now + timedelta(minutes=i), 60 + i, request_class=request_class)
            for request_class in CLASSES
            for i in range(10)
        ]
        store.add_windows(name, "tiny", windows, received_at=now, actor="agent")
        record = example_record(f"{name}-{now:%m%d%H%M}", deployment=name, at=now)
        plan_id = record.plan.plan_id
        store.add_plan(record, actor="policy")
        store.change_approval(
            plan_id, lambda a: supersede(a, by="policy", at=now), action="plan.supersede"
        )
        store.add_forecast(name, replace(self.forecast, made_at=now))
        for i in range(10):
            store.add_decision(
                DecisionRecord(
                    deployment=name,
                    decided_at=now + timedelta(minutes=i),
                    plan_id=plan_id,
                    outcome="unchanged",
                    reason="the fleet is what the plan wants",
                )
            )
        records = [replace(RECORD, started_at=now + timedelta(seconds=6 * i)) for i in range(100)]
        store.add_gate_requests(name, records, now=now, retention_s=self.share * 7 * DAY_S)

    def tidy(self, name: str, now: datetime) -> None:
        began = last = time.process_time()
        for _ in self.store.upkeep(name, self.keeping, newest=100, now=now).run():
            self.longest_s = max(self.longest_s, time.process_time() - last)
            last = time.process_time()
        self.tidied_s += time.process_time() - began

    def size(self) -> int:
        """Of the file and its write-ahead log, bytes."""
        files = [Path(f"{self.path}{end}") for end in ("", "-wal")]
        return sum(file.stat().st_size for file in files if file.exists())


def run(folder: Path, say: Say, *, days: float, deployments: float) -> Result:
    path = folder / "poolwise.db"
    spec = read_spec(write_spec(folder))
    history = [minute(NOON + timedelta(minutes=i)) for i in range(-60, 0)]
    forecast = expected_demand(spec, history, model="tiny", made_at=NOON)
    month = Month(open_store(f"sqlite:///{path}"), path, days / 30, forecast)
    forecasts.KEPT_FORECASTS = int(2_000 * month.share)
    names = [f"shop-{number}" for number in range(int(deployments))]
    now, end_at = NOON, NOON + timedelta(days=days)
    began = time.process_time()
    while now < end_at:
        for name in names:
            month.ten_minutes(name, now)
        now += STEP
        if now.minute == 0:
            for name in names:
                month.tidy(name, now)
        done = (now - NOON) / (end_at - NOON)
        if done >= (len(month.sizes) + 1) / 15:
            month.sizes.append((done, month.size()))
            say(f"{done:.0%}: {month.size() / 1e6:.1f} MB")
    took_s = time.process_time() - began
    month.store.close()
    return _result(month, days, deployments, took_s)


def _result(month: Month, days: float, deployments: float, took_s: float) -> Result:
    late = min(size for done, size in month.sizes if done >= 2 / 3)
    growth = month.sizes[-1][1] / late
    lines = [
        f"{days:g} days, everything kept {month.share:.3g} times as long as in a month; "
        f"{deployments:g} deployments, SQLite.",
        "",
        "| of the time | file and log, MB |",
        "|---|---|",
        *(f"| {done:.0%} | {size / 1e6:.1f} |" for done, size in month.sizes),
        "",
        f"At the end {growth:.3f} of the size at two thirds (asked: at most {MOST_GROWTH:g}). The "
        f"longest piece of tidying took {month.longest_s * 1e3:.0f} ms of CPU; tidying "
        f"{month.tidied_s:.0f} s of {took_s:.0f} s in all.",
    ]
    return Result(text="\n".join(lines), holds=growth <= MOST_GROWTH)
