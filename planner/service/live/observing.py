"""Observed load from live signals: what was seen of a running deployment, cut into windows.

Engines count a request when it ends, so that under a growing backlog they count fewer than arrive.
Arrivals are therefore what ended plus the growth of what is in the system (Little's bookkeeping:
arrived = ended + still there - there before).
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import reduce

from planner.domain.errors import NotLeaderError, PoolwiseError
from planner.domain.fleet import Role
from planner.domain.prefix_cache import CacheReuse, PrefixCache
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.spec import Spec
from planner.domain.workload import LatencySummary, ObservedWindow, Shape
from planner.service.deployment import Deployment
from serving.telemetry.expected import shape_of
from serving.telemetry.histogram import Histogram
from serving.telemetry.interval import latency_of
from serving.telemetry.legs import TwoLegs
from serving.telemetry.signals import (
    Activity,
    DeploymentSignals,
    Judged,
    Latency,
    Signal,
    TargetKind,
    TargetSignals,
)

LOG = logging.getLogger("poolwise.observe")
SEEN_RATIO = 2 / 3
"""A window of which less was seen is not known; of one that is, the rest is taken to be alike."""
MOST_UNSEEN = 3.0
"""Windows without any reading, after which nothing before them is joined to what comes."""

Keep = Callable[[tuple[ObservedWindow, ...]], None]
"""Stores windows; raises PoolwiseError where it cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What was seen in [start_at, end_at).

    Parameters
    ----------
    ended, failed : float
        Requests.
    grown : float
        By how many more requests are in the system at its end than at its beginning.
    input_tokens, output_tokens, cached_tokens : float
    cache_tokens : int or None
        KV cache of all engines that compute prompts, together; None: not all of them tell it, or
        what was found in it is not known.
    prompts, answers : Histogram or None
        Lengths of what ended.
    classes : tuple of (str, float)
        Requests by class, where a gate tells.
    """

    start_at: datetime
    end_at: datetime
    ended: float
    failed: float
    grown: float
    input_tokens: float
    output_tokens: float
    cached_tokens: float
    cache_tokens: int | None
    prompts: Histogram | None
    answers: Histogram | None
    ttft: Histogram | TwoLegs | None
    tpot: Histogram | TwoLegs | None
    e2e: Histogram | TwoLegs | None
    classes: tuple[tuple[str, float], ...]

    @property
    def seconds(self) -> float:
        return (self.end_at - self.start_at).total_seconds()

    def cut(self, start_at: datetime, end_at: datetime) -> "_Part | None":
        """The share of it that lies in [start_at, end_at), taken to be even; None: nothing."""
        start_at, end_at = max(start_at, self.start_at), min(end_at, self.end_at)
        if start_at >= end_at:
            return None
        share = (end_at - start_at).total_seconds() / self.seconds
        return replace(
            self,
            start_at=start_at,
            end_at=end_at,
            ended=self.ended * share,
            failed=self.failed * share,
            grown=self.grown * share,
            input_tokens=self.input_tokens * share,
            output_tokens=self.output_tokens * share,
            cached_tokens=self.cached_tokens * share,
            classes=tuple((name, count * share) for name, count in self.classes),
        )


@dataclass(slots=True)
class Windows:
    """Makes windows of readings and has each kept once it is over.

    Parameters
    ----------
    window_s : float
        Windows begin at whole multiples of it since 1970, seconds.
    classes : tuple of str
        Request classes that the model's promises tell apart.
    keep : callable
    """

    window_s: float
    classes: tuple[str, ...]
    keep: Keep
    _parts: list[_Part] = field(default_factory=list)
    _seen_until: datetime | None = None
    _in_system: float | None = None
    _lengths: tuple[float, float] | None = None
    _complained: str = ""

    def take(self, signals: DeploymentSignals) -> None:
        """One reading more; what it ends is kept."""
        self._follow_clock(signals.looked_at, _seconds(signals) or 0.0)
        part = self._part(signals)
        self._seen_until = signals.looked_at
        self._in_system = in_system(signals)
        if part is not None:
            self._parts.append(part)
        self._keep_until(signals.looked_at)

    def _follow_clock(self, now: datetime, seconds: float) -> None:
        """Begin anew where a clock that was set, or a long blindness, leaves nothing to join.

        Parameters
        ----------
        seconds : float
            What this reading looks back over.
        """
        seen_until = self._seen_until
        if seen_until is None:
            return
        if now < seen_until:
            LOG.warning(
                "the clock went back by %s: what lies ahead of it is dropped", seen_until - now
            )
            cuts = [part.cut(part.start_at, now) for part in self._parts]
            self._parts = [cut for cut in cuts if cut is not None]
            self._seen_until = self._parts[-1].end_at if self._parts else None
            self._in_system = None
        elif (now - seen_until).total_seconds() - seconds > MOST_UNSEEN * self.window_s:
            begun = floor(seen_until, self.window_s)
            self._keep_until(begun + timedelta(seconds=self.window_s))
            self._parts, self._seen_until, self._in_system = [], None, None

    def _part(self, signals: DeploymentSignals) -> _Part | None:
        """What this reading adds; None where it does not tell how many requests ended."""
        ended, seconds = _ended(signals), _seconds(signals)
        if ended is None or seconds is None:
            self._say(f"the load is not seen: {signals.requests_per_s.missing or 'no interval'}")
            return None
        end_at, known_until = signals.looked_at, self._seen_until
        start_at = end_at - timedelta(seconds=seconds)
        joins = known_until is not None and known_until >= start_at - timedelta(seconds=seconds)
        if known_until is not None:
            start_at = max(start_at, known_until)
        if start_at >= end_at:
            return None
        spans = (end_at - start_at).total_seconds()
        now = in_system(signals)
        grown = 0.0
        if joins and now is not None and self._in_system is not None:
            grown = now - self._in_system
        front = [t for t in signals.targets if t.answers and t.kind is TargetKind.GATE]
        cached = (signals.prefix_hit_ratio.value or 0.0) * (signals.input_tokens_per_s.value or 0.0)
        prompts, answers = _lengths(signals, Role.PREFILL), _lengths(signals, Role.DECODE)
        return _Part(
            start_at=start_at,
            end_at=end_at,
            ended=ended[0] * spans,
            failed=ended[1] * spans,
            grown=grown,
            input_tokens=(signals.input_tokens_per_s.value or 0.0) * spans,
            output_tokens=(signals.output_tokens_per_s.value or 0.0) * spans,
            cached_tokens=cached * spans,
            cache_tokens=_cache_tokens(signals),
            prompts=prompts.prompt_lengths if prompts else None,
            answers=answers.answer_lengths if answers else None,
            ttft=signals.ttft.distribution,
            tpot=_tpot(signals),
            e2e=signals.e2e.distribution,
            classes=_by_class(front, spans),
        )

    def _keep_until(self, now: datetime) -> None:
        """Keep every window that is over, and forget what it was made of."""
        if not self._parts:
            return
        start_at = floor(self._parts[0].start_at, self.window_s)
        length, made = timedelta(seconds=self.window_s), []
        while start_at + length <= now:
            end_at = start_at + length
            parts = [cut for p in self._parts if (cut := p.cut(start_at, end_at)) is not None]
            made += self._windows(start_at, parts)
            start_at = end_at
        left = [part.cut(start_at, part.end_at) for part in self._parts]
        self._parts = [part for part in left if part is not None]
        if not made:
            return
        try:
            self.keep(tuple(made))
        except NotLeaderError:  # whoever leads sees the same
            pass
        except PoolwiseError as error:
            self._say(f"what was seen of the load is lost: {error}")

    def _windows(self, start_at: datetime, parts: Sequence[_Part]) -> list[ObservedWindow]:
        """A window of each class; empty where too little was seen."""
        seen_s = sum(part.seconds for part in parts)
        if seen_s < SEEN_RATIO * self.window_s:
            return []
        ended = sum(part.ended for part in parts)
        arrived = max(ended + sum(part.failed + part.grown for part in parts), 0.0)
        arrived *= self.window_s / seen_s
        lengths = self._mean_lengths(parts, ended)
        if lengths is None and round(arrived) > 0:
            self._say(
                "requests arrive whose lengths are not known: none has ended yet, or no engine "
                "tells its prompt and answer tokens"
            )
            return []
        self._complained = ""
        isl, osl = lengths or (0.0, 0.0)
        input_tokens = sum(part.input_tokens for part in parts)
        cached = sum(part.cached_tokens for part in parts) / input_tokens if input_tokens else 0.0
        whole = ObservedWindow(
            start_at=start_at,
            window_s=self.window_s,
            requests=round(arrived),
            input_tokens=0,
            output_tokens=0,
            cached_tokens=0,
            shape=_shape(parts, isl, osl, cached),
            latency=_latency(parts),
            prefix_cache=_prefix_cache(parts, cached),
        )
        return [
            _counted(replace(whole, request_class=name), count, isl=isl, osl=osl, cached=cached)
            for name, count in self._split(arrived, parts)
        ]

    def _mean_lengths(self, parts: Sequence[_Part], ended: float) -> tuple[float, float] | None:
        """Tokens of a prompt and of an answer; those seen last where nothing ended."""
        prompts, answers = (
            _together([p.prompts for p in parts]),
            _together([p.answers for p in parts]),
        )
        isl = prompts.mean if prompts else None
        osl = answers.mean if answers else None
        if ended >= 1:
            isl = isl or sum(part.input_tokens for part in parts) / ended
            osl = osl or sum(part.output_tokens for part in parts) / ended
        if isl and osl:
            self._lengths = isl, osl
        return self._lengths

    def _split(self, arrived: float, parts: Sequence[_Part]) -> list[tuple[str, int]]:
        """Requests by class: as a gate tells, else all of the only class, or the default one."""
        counts: dict[str, float] = {}
        for part in parts:
            for name, count in part.classes:
                counts[name] = counts.get(name, 0.0) + count
        told = sum(counts.values())
        if told > 0:
            return _whole_numbers({n: arrived * c / told for n, c in counts.items()}, arrived)
        if counts and not round(arrived):
            return [(name, 0) for name in counts]
        only = self.classes[0] if len(self.classes) == 1 else DEFAULT_CLASS
        if only not in self.classes:
            self._say(
                f"classes {', '.join(self.classes)} are told apart by a gate only, and none answers"
            )
            return []
        return [(only, round(arrived))]

    def _say(self, text: str) -> None:
        """Log something once, until it is something else or over."""
        if text != self._complained:
            self._complained = text
            LOG.info("%s", text)


@dataclass(slots=True)
class Keeper:
    """Stores windows where this process leads and nobody hands any in.

    Whoever hands in windows knows better what arrived than counters of engines do: with both, the
    load would be counted twice.

    Parameters
    ----------
    leading : callable
        The deployment, None where another process leads.
    since : datetime
        Windows that came in earlier are history, however they came.
    """

    leading: Callable[[], Deployment | None]
    since: datetime
    _own: dict[str, datetime] = field(default_factory=dict)
    _told: bool = False

    def __call__(self, windows: tuple[ObservedWindow, ...]) -> None:
        """Keep them, or leave them.

        Raises
        ------
        PoolwiseError
            When they cannot be stored; NotLeaderError where another process leads.
        """
        deployment = self.leading()
        if deployment is None:
            raise NotLeaderError("another process leads, and keeps what it sees")
        store, name, model = deployment.store, deployment.spec.name, deployment.model
        newest = store.windows(name, model, limit=1)
        others = [s for s in newest if s.received_at >= self.since and not self._is_own(s.window)]
        if others:
            if not self._told:
                LOG.info("deployment=%s windows are handed in: what is seen is not counted", name)
            self._told = True
            return
        self._told = False
        store.add_windows(name, model, windows, received_at=deployment.clock(), actor="watch")
        for window in windows:  # the newest: after a clock was set back it stays the store's newest
            known = self._own.get(window.request_class, window.start_at)
            self._own[window.request_class] = max(known, window.start_at)

    def _is_own(self, window: ObservedWindow) -> bool:
        return self._own.get(window.request_class) == window.start_at


def classes_of(spec: Spec, model: str) -> tuple[str, ...]:
    """Classes that the promises of a model name."""
    return tuple(dict.fromkeys(s.request_class for s in spec.slos if s.model == model))


def floor(at: datetime, window_s: float) -> datetime:
    """The last whole multiple of `window_s` since 1970 that is not after `at`."""
    return datetime.fromtimestamp(math.floor(at.timestamp() / window_s) * window_s, UTC)


def in_system(signals: DeploymentSignals) -> float | None:
    """Requests that wait or run now: as a gate counts them, else in all engines; None: unknown."""
    gates = [t for t in signals.targets if t.answers and t.kind is TargetKind.GATE]
    own = [t.activity for t in gates] or [role.activity for role in signals.roles if role.answering]
    counts = [value for a in own for value in (a.running.value, a.waiting.value)]
    if not counts or any(count is None for count in counts):
        return None
    return float(sum(count or 0.0 for count in counts))


def _ended(signals: DeploymentSignals) -> tuple[float, float] | None:
    """Requests/s that were answered, and that failed, as whoever is asked for `in_system` counts.

    A router is asked only where no engine answers: some count requests as they come, others as
    they go.
    """
    gates = [t.activity for t in signals.targets if t.answers and t.kind is TargetKind.GATE]
    last = (Role.DECODE, Role.AGGREGATED)
    own = gates or [r.activity for r in signals.roles if r.answering and r.role in last]
    if not own:
        rate = signals.requests_per_s.value
        return None if rate is None else (rate, 0.0)
    rates = [activity.requests_per_s.value for activity in own]
    if any(rate is None for rate in rates):
        return None
    answered = sum(rate or 0.0 for rate in rates)
    return answered, sum(activity.failed_per_s.value or 0.0 for activity in own)


def _seconds(signals: DeploymentSignals) -> float | None:
    return max((t.interval_s for t in signals.targets if t.answers and t.interval_s), default=None)


def _lengths(signals: DeploymentSignals, role: Role) -> Activity | None:
    """Of the engines that compute prompts, or those that decode."""
    by_role = {found.role: found.activity for found in signals.roles if found.answering}
    return by_role.get(role) or by_role.get(Role.AGGREGATED)


def _cache_tokens(signals: DeploymentSignals) -> int | None:
    """KV cache of all engines that compute prompts, where finds in it are counted; tokens."""
    computing = [r for r in signals.roles if r.role in (Role.PREFILL, Role.AGGREGATED)]
    sizes = [r.activity.kv_capacity_tokens.value for r in computing if r.answering == r.workers]
    known = [size for size in sizes if size is not None]
    whole = signals.prefix_hit_ratio.known and len(known) == len(computing)
    return round(sum(known)) or None if whole else None


def _prefix_cache(parts: Sequence[_Part], cached: float) -> PrefixCache | None:
    """The caches that prompts met last; of other sizes only the KV view's events tell."""
    sizes = [part.cache_tokens for part in parts if part.cache_tokens is not None]
    if not sizes:
        return None
    found = CacheReuse(cache_tokens=sizes[-1], reuse_ratio=min(cached, 1.0))
    return PrefixCache(cache_tokens=sizes[-1], reuse=(found,))


def _tpot(signals: DeploymentSignals) -> Histogram | TwoLegs | None:
    front = [t for t in signals.targets if t.answers and t.kind is TargetKind.GATE]
    seen: list[Latency] = [t.activity.tpot for t in front]
    decoding = _lengths(signals, Role.DECODE)
    if decoding is not None:
        seen.append(decoding.tpot)
    return next((one.distribution for one in seen if one.distribution is not None), None)


def _by_class(front: Sequence[TargetSignals], seconds: float) -> tuple[tuple[str, float], ...]:
    judged: list[Judged] = [one for target in front for one in target.activity.judged]
    return tuple((one.request_class, (one.judged_per_s.value or 0.0) * seconds) for one in judged)


def _together(histograms: Sequence[Histogram | None]) -> Histogram | None:
    """All values of those that are known; None: none is."""
    known = [histogram for histogram in histograms if histogram is not None]
    return reduce(lambda a, b: a + b, known) if known else None


def _shape(parts: Sequence[_Part], isl: float, osl: float, cached: float) -> Shape | None:
    """Lengths of what ended in the window, prompts and answers taken to be independent."""
    if not isl or not osl:
        return None
    return shape_of(
        _together([part.prompts for part in parts]),
        Signal(value=isl),
        _together([part.answers for part in parts]),
        Signal(value=osl),
        cached_ratio=cached,
    )


def _latency(parts: Sequence[_Part]) -> LatencySummary | None:
    ttft, tpot, e2e = (
        _quantiles([getattr(part, name) for part in parts]) for name in ("ttft", "tpot", "e2e")
    )
    if ttft is None and tpot is None and e2e is None:
        return None
    return LatencySummary(
        ttft_p50_s=ttft.p50_s.value if ttft else None,
        ttft_p95_s=ttft.p95_s.value if ttft else None,
        tpot_p50_s=tpot.p50_s.value if tpot else None,
        tpot_p95_s=tpot.p95_s.value if tpot else None,
        e2e_p95_s=e2e.p95_s.value if e2e else None,
    )


def _quantiles(seen: Sequence[Histogram | TwoLegs | None]) -> Latency | None:
    """Of all values together, where every reading tells them in the same way."""
    whole = _together([one if isinstance(one, Histogram) else None for one in seen])
    legs = [one for one in seen if isinstance(one, TwoLegs)]
    if whole is not None:
        return latency_of(whole, metric="") if whole.count > 0 else None
    first, second = _together([a.first for a in legs]), _together([a.second for a in legs])
    if first is None or second is None:
        return None
    both = TwoLegs(first=first, second=second)
    return latency_of(both, metric="") if both.count > 0 else None


def _whole_numbers(counts: dict[str, float], total: float) -> list[tuple[str, int]]:
    """Rounded so that the sum is right: the largest remainders are rounded up."""
    floors = {name: math.floor(count) for name, count in counts.items()}
    left = round(total) - sum(floors.values())
    by_remainder = sorted(counts, key=lambda name: (floors[name] - counts[name], name))
    for name in by_remainder[: max(left, 0)]:
        floors[name] += 1
    return sorted(floors.items())


def _counted(
    window: ObservedWindow, count: int, *, isl: float, osl: float, cached: float
) -> ObservedWindow:
    input_tokens = round(count * isl)
    return replace(
        window,
        requests=count,
        input_tokens=input_tokens,
        output_tokens=round(count * osl),
        cached_tokens=min(round(input_tokens * cached), input_tokens),
        shape=window.shape if count else None,
        latency=window.latency if count else None,
        prefix_cache=window.prefix_cache if count else None,
    )
