"""The stretches of traffic of a demo run, and when they were."""

from dataclasses import dataclass

from planner.service.demo.outcome import Outcome
from planner.service.reports.page import AFTER, BEFORE, DURING
from serving.traffic.load import Replay


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of traffic: what it is called, and how its requests are marked."""

    name: str
    replay: Replay
    colour: str
    symbol: str


def phases_of(outcome: Outcome) -> tuple[Phase, ...]:
    """Stretches of traffic in their order, those without a request too."""
    found = [Phase(name="warm-up", replay=outcome.before.replay, colour=BEFORE, symbol="circle")]
    if outcome.during is not None:
        found.append(
            Phase(name="during the rollout", replay=outcome.during, colour=DURING, symbol="diamond")
        )
    found.append(Phase(name="after", replay=outcome.after.replay, colour=AFTER, symbol="square"))
    return tuple(found)


def span_of(outcome: Outcome) -> tuple[float, float]:
    """From the first window's begin to the last answer, seconds since the demo began."""
    phases = phases_of(outcome)
    ends = [p.replay.began_at_s + p.replay.workload.duration_s for p in phases]
    ends += [t.token_at_s[-1] for p in phases for t in p.replay.timings if t.token_at_s]
    start_s = min(p.replay.began_at_s for p in phases)
    return start_s - outcome.began_at_s, max(ends) - outcome.began_at_s
