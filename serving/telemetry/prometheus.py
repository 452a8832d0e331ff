"""Looking at a deployment through a Prometheus server, or what speaks its query API.

One instant query with a range selector brings the raw samples of the window, with their times: how
old they are, and where a counter went back, is seen and not guessed.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import cast

import httpx

from planner.domain.errors import EngineError
from planner.domain.fleet import Role
from serving.telemetry.names import SOURCES, wanted_names
from serving.telemetry.page import Page, Sample
from serving.telemetry.quantities import Kind, spelled_alike
from serving.telemetry.signals import Source, TargetKind
from serving.telemetry.targets import Look, Target

ROLE_LABELS = ("role", "worker_role", "llm_d_ai_role", "worker_type", "engine_type")
_ROLES = {
    "prefill": Role.PREFILL,
    "decode": Role.DECODE,
    "aggregated": Role.AGGREGATED,
    "both": Role.AGGREGATED,
    "prefill-decode": Role.AGGREGATED,
    "unified": Role.AGGREGATED,
    "regular": Role.AGGREGATED,
}
_TOGETHER_S = 1.0
"""Samples of one scrape carry one time; what federates or writes remotely may spread them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusServer:
    """A server and which of its series are the deployment's.

    Parameters
    ----------
    url : str
        Up to, not including, `/api/v1`.
    selector : str
        Label matchers as in PromQL without the braces, as `namespace="prod",job=~"vllm.*"`.
    headers : mapping
        Sent with every query: authorization, tenant.
    window_s : float
        Over which rates are taken, seconds; at least two scrapes must lie in it.
    role_labels : tuple of str
        Labels that carry a worker's role, the first that is there counts.
    """

    url: str
    selector: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    window_s: float = 120.0
    role_labels: tuple[str, ...] = ROLE_LABELS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Points:
    """Raw samples of one series in the window, oldest first: seconds since 1970, and value."""

    name: str
    labels: dict[str, str]
    points: list[tuple[float, float]]
    restarted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one target's series bring.

    Parameters
    ----------
    earlier : Look or None
        With `later` it tells rates; None: there was one scrape, or none.
    moments : tuple of Look
        What does not only grow (queues, memory in use) at each scrape in between.
    """

    earlier: Look | None
    later: Look
    moments: tuple[Look, ...] = ()

    @property
    def looks(self) -> tuple[Look, ...]:
        """All of them, oldest first."""
        first = () if self.earlier is None else (self.earlier,)
        return (*first, *self.moments, self.later)


def look_through(server: PrometheusServer, *, deadline_s: float) -> tuple[Seen, ...]:
    """Every target that the server knows, as two looks at each.

    Raises
    ------
    EngineError
        When the server does not answer, refuses the query, or has none of the metrics.
    """
    query = f"{{{_matchers(server.selector)}}}[{server.window_s:g}s]"
    with httpx.Client(timeout=deadline_s, headers=dict(server.headers)) as client:
        found = _ask(client, server, query)
        ups = _ask(client, server, f"up{{{server.selector}}}")
        now_s = _server_time(client, server)
    series = [_points(one) for one in found]
    if not series:
        raise EngineError(
            f"Prometheus at {server.url} has none of the metrics that are known here"
            + (f" with {server.selector}" if server.selector else "")
            + f" in the last {server.window_s:g} s: check the selector, and that it scrapes the "
            "engines and the router"
        )
    down = _down(ups)
    seen: list[Seen] = []
    for instance, own in sorted(_by_instance(series).items()):
        seen += _seen(server, instance, own, now_s=now_s, down=down.get(instance, False))
    return tuple(seen)


def _matchers(selector: str) -> str:
    names = "|".join(sorted({_either_spelling(name) for name in wanted_names()}))
    return f'__name__=~"{names}"' + (f",{selector}" if selector else "")


_COUNTING = {spelled_alike(name) for name in wanted_names((Kind.COUNTER, Kind.HISTOGRAM))}
"""Names of what only grows until its process starts anew."""


def _either_spelling(name: str) -> str:
    """A pattern for a name with a colon or an underscore, with `_total` and without."""
    return name.removesuffix("_total").replace(":", "[:_]") + "(_total)?"


def _ask(client: httpx.Client, server: PrometheusServer, query: str) -> list[dict[str, object]]:
    """The result of an instant query."""
    address = f"{server.url.rstrip('/')}/api/v1/query"
    try:
        answer = client.post(address, data={"query": query})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise EngineError(f"Prometheus at {server.url} does not answer: {error}") from error
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise EngineError(
            f"Prometheus at {server.url} wants authorization (HTTP {answer.status_code}): set "
            "POOLWISE_PROMETHEUS_AUTHORIZATION to the header's value, as `Bearer ...`"
        )
    try:
        body = cast("dict[str, object]", answer.json())
        if body["status"] != "success":
            raise EngineError(
                f"Prometheus at {server.url} refuses the query: {body.get('error', 'no reason')}; "
                "check --selector"
            )
        data = cast("dict[str, object]", body["data"])
        return cast("list[dict[str, object]]", data["result"])
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"{address} answers with HTTP {answer.status_code}, but not as Prometheus does: is "
            "this the server's address, up to /api/v1?"
        ) from error


def _server_time(client: httpx.Client, server: PrometheusServer) -> float:
    """Seconds since 1970 by the server's clock, against which its samples are old."""
    result = cast("list[object]", _ask(client, server, "time()"))
    return float(cast("str", result[1])) if len(result) == 2 else time.time()


def _points(one: dict[str, object]) -> _Points:
    labels = dict(cast("dict[str, str]", one["metric"]))
    values = cast("list[tuple[float, str]]", one.get("values", []))
    return _Points(
        name=labels.pop("__name__", ""),
        labels=labels,
        points=[(float(at), float(value)) for at, value in values],
    )


def _instance(labels: Mapping[str, str]) -> tuple[str, str]:
    return labels.get("job", ""), labels.get("instance", labels.get("pod", ""))


def _by_instance(series: Iterable[_Points]) -> dict[tuple[str, str], list[_Points]]:
    found: dict[tuple[str, str], list[_Points]] = {}
    for one in series:
        if one.points:
            found.setdefault(_instance(one.labels), []).append(one)
    return found


def _down(ups: Iterable[dict[str, object]]) -> dict[tuple[str, str], bool]:
    """Whether the server's last scrape of each instance failed."""
    return {
        _instance(cast("dict[str, str]", one["metric"])): float(
            cast("tuple[float, str]", one["value"])[1]
        )
        == 0.0
        for one in ups
        if "value" in one
    }


def _seen(
    server: PrometheusServer,
    instance: tuple[str, str],
    series: Sequence[_Points],
    *,
    now_s: float,
    down: bool,
) -> list[Seen]:
    """The looks at one instance, one pair for each source whose metrics it has.

    A series that the newest scrape did not bring has ended, and is left out of the later look.
    """
    unrolled = [_unrolled(one) for one in series]
    newest_s = max(one.points[-1][0] for one in unrolled)
    oldest_s = min(one.points[0][0] for one in unrolled)
    later, earlier = _page(unrolled, -1, newest_s), _page(unrolled, 0, oldest_s)
    age_s = max(now_s - newest_s, 0.0)
    seen = []
    for source in later.sources():
        target = _target(server, instance, source, series)
        if down:
            why = f"Prometheus cannot scrape it; its newest sample is {age_s:.0f} s old"
            seen.append(Seen(earlier=None, later=Look(target=target, error=why)))
            continue
        look = Look(
            target=target,
            page=later,
            age_s=age_s,
            every_s=_scrape_interval_s(series),
            counted_over_restart=any(one.restarted for one in unrolled),
        )
        before = Look(target=target, page=earlier) if newest_s > oldest_s else None
        between = (oldest_s, newest_s)
        moments = [Look(target=target, page=page) for page in _moments(unrolled, between)]
        seen.append(Seen(earlier=before, later=look, moments=tuple(moments)))
    return seen


def _moments(series: Iterable[_Points], between: tuple[float, float]) -> list[Page]:
    """What each scrape inside a span of time says of what does not only grow."""
    by_time: dict[float, list[Sample]] = {}
    for one in series:
        if spelled_alike(one.name) in _COUNTING:
            continue
        for at_s, value in one.points:
            if between[0] < at_s < between[1]:
                by_time.setdefault(at_s, []).append(Sample(one.name, one.labels, value))
    return [Page.of(samples, at_s=at_s) for at_s, samples in sorted(by_time.items())]


def _page(series: Iterable[_Points], index: int, at_s: float) -> Page:
    """The samples of one scrape."""
    return Page.of(
        [
            Sample(one.name, one.labels, one.points[index][1])
            for one in series
            if abs(one.points[index][0] - at_s) <= _TOGETHER_S
        ],
        at_s=at_s,
    )


def _unrolled(series: _Points) -> _Points:
    """A counter as if it had never gone back, which is how Prometheus' `increase` counts."""
    if spelled_alike(series.name) not in _COUNTING:
        return series
    points, lost = [series.points[0]], 0.0
    for (_, before), (at_s, value) in pairwise(series.points):
        if value < before:
            lost += before
        points.append((at_s, value + lost))
    return replace(series, points=points, restarted=lost > 0)


def _scrape_interval_s(series: Iterable[_Points]) -> float | None:
    """The longest usual distance between samples; None when no series has two."""
    spans = [
        (one.points[-1][0] - one.points[0][0]) / (len(one.points) - 1)
        for one in series
        if len(one.points) > 1
    ]
    return max(spans, default=None)


def _target(
    server: PrometheusServer,
    instance: tuple[str, str],
    source: Source,
    series: Sequence[_Points],
) -> Target:
    kind = SOURCES[source].kind
    _, address = instance
    pod = next((one.labels["pod"] for one in series if "pod" in one.labels), "")
    return Target(
        name=pod or address or str(source),
        url=address,
        metrics_url=server.url,
        kind=kind,
        source=source,
        role=_role(server.role_labels, series) if kind is TargetKind.ENGINE else None,
    )


def _role(role_labels: Sequence[str], series: Iterable[_Points]) -> Role | None:
    """By the first of the labels that is there and names a role; None: not told."""
    for label in role_labels:
        for one in series:
            role = _ROLES.get(one.labels.get(label, "").lower())
            if role is not None:
                return role
    return None
