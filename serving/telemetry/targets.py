"""Looking at all parts of a deployment at once: straight from their metrics pages."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import httpx

from planner.domain.errors import EngineError
from planner.domain.fleet import Role
from serving.fleet.endpoints import Endpoints
from serving.telemetry.interval import Interval
from serving.telemetry.names import SOURCES
from serving.telemetry.page import Page
from serving.telemetry.signals import Source, TargetKind, TargetSignals, TargetState

LARGEST_PAGE_BYTES = 32 * 1024 * 1024
STALE_S = 60.0
"""A sample older than this is not of now: four scrapes at Prometheus' usual 15 s."""
_MISSED_SCRAPES = 3
"""Where samples are taken more seldom, so many of them may be missing."""

_PLAIN = {"Accept": "text/plain; version=0.0.4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where one part tells about itself.

    Parameters
    ----------
    metrics_url : str
        Of the page.
    source : Source or None
        Whose names it speaks; None: found out from the page.
    """

    name: str
    url: str
    metrics_url: str
    kind: TargetKind
    source: Source | None = None
    role: Role | None = None
    cell: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look at a target brought: a page, or why there is none.

    Parameters
    ----------
    age_s : float
        How old the page's samples were when they were looked at.
    every_s : float or None
        How often samples are taken, where somebody else takes them.
    counted_over_restart : bool
        Whether its process was started anew since the earlier look, and its counters were made
        to go on.
    """

    target: Target
    page: Page | None = None
    error: str = ""
    age_s: float = 0.0
    every_s: float | None = None
    counted_over_restart: bool = False


def metrics_page(url: str) -> str:
    """The address of a metrics page, given with or without `/metrics`."""
    return f"{url.rstrip('/').removesuffix('/metrics')}/metrics"


def targets_of(endpoints: Endpoints) -> tuple[Target, ...]:
    """Every part that a running local deployment names in its endpoints file."""
    workers = [
        Target(
            name=worker.name,
            url=worker.url,
            metrics_url=metrics_page(worker.url),
            kind=TargetKind.ENGINE,
            role=worker.role,
            cell=worker.cell,
        )
        for worker in endpoints.workers
    ]
    routers = [
        Target(
            name=f"router {router.cell}".strip(),
            url=router.url,
            metrics_url=router.metrics_url,
            kind=TargetKind.ROUTER,
            cell=router.cell,
        )
        for router in endpoints.routers
    ]
    gate = [
        Target(
            name="gate",
            url=url,
            metrics_url=metrics_page(url),
            kind=TargetKind.GATE,
            source=Source.GATE,
        )
        for url in (endpoints.gate,)
        if url is not None
    ]
    return (*gate, *routers, *workers)


def look(targets: Sequence[Target], *, deadline_s: float) -> tuple[Look, ...]:
    """Look at every target once, all at the same time.

    Parameters
    ----------
    deadline_s : float
        Given to each target by itself, seconds; one that hangs holds up nobody for longer.
    """
    # Parsed when all have come: parsing one page would eat up the others' time.
    return tuple(map(_parsed, asyncio.run(_fetch_all(targets, deadline_s))))


@dataclass(frozen=True, slots=True)
class _Fetched:
    """What a target sent, and when; or why nothing came."""

    target: Target
    at_s: float = 0.0
    text: str = ""
    error: str = ""


async def _fetch_all(targets: Sequence[Target], deadline_s: float) -> list[_Fetched]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=deadline_s, limits=limits, trust_env=False) as client:
        return await asyncio.gather(*(_fetch(client, target, deadline_s) for target in targets))


async def _fetch(client: httpx.AsyncClient, target: Target, deadline_s: float) -> _Fetched:
    try:
        async with asyncio.timeout(deadline_s):
            text = await _text(client, target.metrics_url)
    except TimeoutError:
        return _Fetched(target, error=f"no answer within {deadline_s:g} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return _Fetched(target, error=f"it does not answer: {_words(error)}")
    except EngineError as error:
        return _Fetched(target, error=str(error))
    return _Fetched(target, time.time(), text)


def _parsed(fetched: _Fetched) -> Look:
    if fetched.error:
        return Look(target=fetched.target, error=fetched.error)
    try:
        page = Page.parse(fetched.text, at_s=fetched.at_s, source=fetched.target.metrics_url)
    except EngineError as error:
        return Look(target=fetched.target, error=str(error))
    return Look(target=fetched.target, page=page, age_s=fetched.at_s - page.at_s)


async def _text(client: httpx.AsyncClient, url: str) -> str:
    """A page's text, no more of it than a metrics page can have."""
    async with client.stream("GET", url, headers=_PLAIN) as answer:
        if answer.status_code != httpx.codes.OK:
            raise EngineError(f"it answers with HTTP {answer.status_code} on {url}")
        chunks, size = [], 0
        async for chunk in answer.aiter_bytes():
            size += len(chunk)
            if size > LARGEST_PAGE_BYTES:
                raise EngineError(f"{url} is larger than {LARGEST_PAGE_BYTES} bytes: no metrics")
            chunks.append(chunk)
    return b"".join(chunks).decode("utf-8", errors="replace")


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def signals_of(earlier: Look | None, later: Look) -> TargetSignals:
    """What two looks at one target tell.

    Parameters
    ----------
    earlier : Look or None
        None, or without a page: rates are not known.
    """
    target, page = later.target, later.page
    blank = TargetSignals(
        name=target.name,
        url=target.url,
        kind=target.kind,
        source=target.source or _usual(target.kind),
        role=target.role,
        cell=target.cell,
        state=TargetState.DOWN,
        note=later.error,
    )
    if page is None:
        return blank
    source = _source(target, page)
    if source is None:
        return replace(blank, note=_unknown(target, page))
    interval = Interval(source, earlier.page if earlier else None, page)
    state, note = _state(interval, later)
    return replace(
        blank,
        kind=SOURCES[source].kind,
        source=source,
        model=page.model(source),
        state=state,
        note=note,
        observed_at=datetime.fromtimestamp(page.at_s, UTC),
        age_s=later.age_s,
        interval_s=interval.seconds,
        activity=interval.activity(),
    )


def _state(interval: Interval, look: Look) -> tuple[TargetState, str]:
    if look.age_s > max(STALE_S, _MISSED_SCRAPES * (look.every_s or 0.0)):
        return TargetState.STALE, f"its newest sample is {look.age_s:.0f} s old"
    if look.counted_over_restart:
        return (
            TargetState.RESTARTED,
            "it was started anew in the interval: counted before and after",
        )
    if interval.restarted:
        known = interval.later.started_at_s is not None
        since = "since its start" if known else "at the least (its start time is not told)"
        return TargetState.RESTARTED, f"it was started anew in the interval: rates are {since}"
    return TargetState.UP, ""


def _usual(kind: TargetKind) -> Source:
    """Whose names a target of a kind is taken to speak until its page is read."""
    return {
        TargetKind.ENGINE: Source.VLLM,
        TargetKind.ROUTER: Source.SMG,
        TargetKind.GATE: Source.GATE,
        TargetKind.HARDWARE: Source.DCGM,
    }[kind]


def _source(target: Target, page: Page) -> Source | None:
    """Whose names a page speaks, of those that its target can be."""
    found = page.sources()
    if target.source is not None:
        return target.source if target.source in found else None
    return next((s for s in found if SOURCES[s].kind is target.kind), None)


def _unknown(target: Target, page: Page) -> str:
    found = ", ".join(page.sources()) or "none that is known"
    wanted = target.source or f"a known {target.kind}"
    return f"it answers, but its metrics are not those of {wanted} (found: {found})"
