"""The cells behind the gate: their routers, workers, and what the workers say of themselves."""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from planner.domain.errors import EngineError
from planner.domain.fleet import Role
from planner.domain.profile import Profile
from serving.fleet.endpoints import Endpoints, WorkerEndpoint, read_endpoints, written_at_ns
from serving.gate.estimates import CellLoad, CellTimes, WorkerLoad
from serving.gate.load import CellLedger, Errors, Others
from serving.telemetry import EngineReading, parse_engine

POLL_S = 2.0
POLL_TIMEOUT_S = 5.0
ROUTER_TIMEOUT_S = 2.0
"""A router that lives answers a health request at once."""
MOST_UNANSWERED = 2
"""So many health requests in a row without an answer: the router hangs, nothing new is sent to
it."""
STALE_S = 10.0
"""Older readings are not used."""
STEADY_POLLS = 3
"""Requests past the gate count when so many readings in a row show them: a request on its way
between two workers is in neither's count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One reading of a worker, at an instant of the monotonic clock."""

    at_s: float
    reading: EngineReading


@dataclass(slots=True, eq=False)
class Cell:
    """One router with its workers.

    Parameters
    ----------
    workers : tuple of WorkerEndpoint
        None known: requests pass through without estimates.
    times : CellTimes or None
        None: no profile describes the workers.
    unanswered : int
        Health requests in a row that its router took and did not answer. One that takes no
        connection is not meant: it is started again within a moment, and waited for.
    serves : bool
        It has both halves of a pair, or an aggregated worker; taken so where nobody says.
    """

    name: str
    url: str
    workers: tuple[WorkerEndpoint, ...] = ()
    times: CellTimes | None = None
    serves: bool = True
    ledger: CellLedger = field(default_factory=CellLedger)
    errors: Errors = field(default_factory=Errors)
    observed: dict[str, Observed] = field(default_factory=dict)
    cached_ratio: float = 0.0
    unanswered: int = 0
    _kv_usage_ratio: float | None = None
    _oldest_s: float = -math.inf
    _prefilling: int = 0
    _answering: int = 0
    _decoding: tuple[WorkerEndpoint, ...] = ()
    _others: deque[Others] = field(default_factory=lambda: deque(maxlen=STEADY_POLLS))

    @property
    def disaggregated(self) -> bool:
        """Whether prompts and answers are computed by different workers; taken so if unknown."""
        return not self.workers or any(w.role is Role.PREFILL for w in self.workers)

    def use(self, workers: tuple[WorkerEndpoint, ...], times: CellTimes | None) -> None:
        """Take these workers from now on; what decisions ask for is counted once, here."""
        self.workers, self.times = workers, times
        self._prefilling = len(self.of_role(Role.PREFILL, Role.AGGREGATED))
        self._answering = len(self.of_role(Role.DECODE, Role.AGGREGATED))
        self._decoding = self.of_role(Role.DECODE)
        self._oldest_s = -math.inf
        self._look()

    def of_role(self, *roles: Role) -> tuple[WorkerEndpoint, ...]:
        """Workers of some roles that take requests."""
        return tuple(w for w in self.workers if w.role in roles and not w.draining)

    @property
    def hangs(self) -> bool:
        """Whether its router takes requests and answers nothing."""
        return self.unanswered >= MOST_UNANSWERED

    @property
    def is_whole(self) -> bool:
        """Whether workers that take requests can compute prompts and answers."""
        return bool(self._prefilling and self._answering)

    @property
    def busyness(self) -> float:
        """For choosing the least loaded cell: requests under way for each worker."""
        return self.ledger.in_flight / max(len(self.workers), 1)

    def load(self, now_s: float) -> CellLoad:
        """What is under way here now."""
        return self.ledger.load(
            now_s,
            prefill_replicas=self._prefilling,
            decode_replicas=self._answering,
            others=self._steady_others(),
            kv_usage_ratio=None if self.is_stale(now_s) else self._kv_usage_ratio,
        )

    def is_stale(self, now_s: float) -> bool:
        """Whether a worker has not told of itself lately."""
        return now_s - self._oldest_s > STALE_S

    @property
    def answers_each(self) -> float:
        """Answers under way for each worker that writes them."""
        return self.ledger.answering / max(self._answering, 1)

    def direct_worker(self, now_s: float) -> tuple[WorkerEndpoint, WorkerLoad] | None:
        """The decode worker with the smallest batch; None where one of them is not heard of."""
        found: tuple[WorkerEndpoint, WorkerLoad] | None = None
        own = self.ledger.answering / max(len(self._decoding), 1)
        for worker in self._decoding:
            reading = self._fresh(worker, now_s)
            if reading is None:
                return None
            _requests, waiting = self.ledger.on_worker(worker.name)
            load = WorkerLoad(
                running=max(reading.running + reading.waiting, int(own)),
                direct_prompts=waiting,
                kv_usage_ratio=reading.kv_usage_ratio,
            )
            if found is None or load.running < found[1].running:
                found = worker, load
        return found

    def note(self, readings: Mapping[str, Observed]) -> None:
        """Take in a round of readings."""
        self.observed = {**self.observed, **readings}
        self._look()
        prompts = answers = 0
        for worker in self.workers:
            if (one := self.observed.get(worker.name)) is None:
                continue
            if worker.role is Role.PREFILL:
                prompts += one.reading.running + one.reading.waiting
            else:
                answers += one.reading.running + one.reading.waiting
        self._others.append(
            Others(
                prompts=max(prompts - self.ledger.waiting, 0),
                answers=max(answers - self.ledger.in_flight, 0),
            )
        )

    def _look(self) -> None:
        """Sum up the newest readings of all workers."""
        known = [(w, self.observed[w.name]) for w in self.workers if w.name in self.observed]
        complete = len(known) == len(self.workers)
        self._oldest_s = min((o.at_s for _, o in known), default=-math.inf)
        self._oldest_s = self._oldest_s if complete else -math.inf
        usage = [o.reading.kv_usage_ratio for w, o in known if w.role is not Role.PREFILL]
        self._kv_usage_ratio = max(usage, default=None)
        counters = [o.reading.counters for w, o in known if w.role is not Role.DECODE]
        found = sum(c.prompt_tokens_cached for c in counters)
        asked = found + sum(c.prompt_tokens_computed for c in counters)
        self.cached_ratio = found / asked if asked > 0 else 0.0

    def _steady_others(self) -> Others:
        if len(self._others) < STEADY_POLLS:
            return Others()
        return Others(
            prompts=min(one.prompts for one in self._others),
            answers=min(one.answers for one in self._others),
        )

    def _fresh(self, worker: WorkerEndpoint, now_s: float) -> EngineReading | None:
        one = self.observed.get(worker.name)
        return one.reading if one is not None and now_s - one.at_s <= STALE_S else None


@dataclass(slots=True, eq=False)
class Cells:
    """All cells; follows the endpoints file of a running deployment.

    Parameters
    ----------
    profiles : sequence of Profile
        From the spec.
    routers : tuple of str
        Base URLs given by hand; empty: as the endpoints file says.
    state_dir : Path or None
        Where the endpoints file is.
    """

    model: str
    profiles: Sequence[Profile] = ()
    routers: tuple[str, ...] = ()
    state_dir: Path | None = None
    problem: str = ""
    _cells: dict[str, Cell] = field(default_factory=dict)
    _endpoints: Endpoints | None = None
    _read_at_ns: int | None = None

    def __post_init__(self) -> None:
        self._cells = {url: Cell(name=url, url=url) for url in self.routers}

    @property
    def all(self) -> tuple[Cell, ...]:
        """Every cell."""
        return tuple(self._cells.values())

    def by_load(self) -> list[Cell]:
        """Cells that can answer, the least loaded first; where none can, all that do not hang."""
        there = [cell for cell in self._cells.values() if not cell.hangs]
        able = [cell for cell in there if cell.serves]
        return sorted(able or there, key=lambda cell: cell.busyness)

    def have_moved(self) -> bool:
        """Whether the endpoints file was replaced since it was read; if so, it is read now.

        Asked before a worker is sent to directly: it may be draining, or about to end.
        """
        if self.state_dir is None or written_at_ns(self.state_dir) == self._read_at_ns:
            return False
        self.refresh()
        return True

    def refresh(self) -> None:
        """Read the endpoints file again; cells that stay keep what is known of them."""
        if self.state_dir is None:
            return
        self._read_at_ns = written_at_ns(self.state_dir)
        try:
            endpoints = read_endpoints(self.state_dir)
        except EngineError as error:
            self.problem = str(error)
            if not self.routers:
                self._cells, self._endpoints = {}, None
            return
        self.problem = ""
        if endpoints != self._endpoints:
            self._endpoints = endpoints
            self._follow(endpoints)

    def _follow(self, endpoints: Endpoints) -> None:
        cells = {}
        listed = [(r.cell, r.url) for r in endpoints.routers]
        if self.routers:
            listed = [(cell, url) for cell, url in listed if url in self.routers]
            given = [url for url in self.routers if url not in {url for _, url in listed}]
            listed += [(url, url) for url in given]
        for name, url in listed:
            workers = tuple(w for w in endpoints.workers if w.cell == name)
            cell = self._cells.get(url) or Cell(name=name, url=url)
            cell.name = name
            cell.use(workers, self._times(workers))
            cell.serves = url == name or cell.is_whole
            cells[url] = cell
        self._cells = cells

    def _times(self, workers: Sequence[WorkerEndpoint]) -> CellTimes | None:
        """Times of workers in their roles; the profile measured in a role before any other."""
        roles = {worker.role for worker in workers}
        if Role.DECODE in roles and Role.PREFILL in roles:
            prefill, decode = self._profile(Role.PREFILL), self._profile(Role.DECODE)
            if prefill is not None and decode is not None:
                return CellTimes(prefill=prefill, decode=decode, disaggregated=True)
            return None
        profile = self._profile(Role.AGGREGATED) if Role.AGGREGATED in roles else None
        if profile is None:
            return None
        return CellTimes(prefill=profile, decode=profile, disaggregated=False)

    def _profile(self, role: Role) -> Profile | None:
        own = [p for p in self.profiles if p.model == self.model and role in p.roles]
        return own[0] if own else None

    async def watch(self) -> None:
        """Follow endpoints and workers until cancelled."""
        async with httpx.AsyncClient(timeout=POLL_TIMEOUT_S) as client:
            while True:
                self.refresh()
                # At the same time: a part that hangs holds up nobody else's readings.
                await asyncio.gather(*(_follow_cell(cell, client) for cell in self.all))
                await asyncio.sleep(POLL_S)


async def _follow_cell(cell: Cell, client: httpx.AsyncClient) -> None:
    await asyncio.gather(_poll(cell, client), _ask_router(cell, client))


async def _ask_router(cell: Cell, client: httpx.AsyncClient) -> None:
    """Any answer will do: a router without workers calls itself unhealthy, and lives."""
    try:
        await client.get(f"{cell.url}/health", timeout=ROUTER_TIMEOUT_S)
    except httpx.TimeoutException:
        cell.unanswered += 1
    except httpx.HTTPError:
        cell.unanswered = 0
    else:
        cell.unanswered = 0


async def _poll(cell: Cell, client: httpx.AsyncClient) -> None:
    """Ask every worker of a cell; one that does not answer keeps its last reading, ageing."""
    found = await asyncio.gather(*(_read(client, worker) for worker in cell.workers))
    readings = {w.name: one for w, one in zip(cell.workers, found, strict=True) if one is not None}
    cell.note(readings)


async def _read(client: httpx.AsyncClient, worker: WorkerEndpoint) -> Observed | None:
    with contextlib.suppress(httpx.HTTPError, EngineError):
        answer = await client.get(f"{worker.url}/metrics")
        if answer.status_code == 200:
            at_s = time.monotonic()
            reading = await asyncio.to_thread(_parse, answer.text, worker.url)
            return Observed(at_s=at_s, reading=reading)
    return None


def _parse(text: str, url: str) -> EngineReading:
    """Histograms' buckets, most of a scrape, are left out: reading them would hold up answers."""
    lines = (line for line in text.splitlines() if "_bucket{" not in line)
    return parse_engine("\n".join(lines) + "\n", source=url)
