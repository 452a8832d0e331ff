"""The gate's ASGI application: who asks, what for, whether it may; then the exchange."""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from planner.domain.slo import DEFAULT_CLASS, Slo
from serving.gate.admission import Case, Decision, Promise, Way, Why, decide
from serving.gate.asgi import Receive, Scope, Send, answer, header, headers_of, read_body, refuse
from serving.gate.cells import Cell, Cells
from serving.gate.connections import Link, link_of
from serving.gate.estimates import Prompt
from serving.gate.exchange import Books, Caller, Exchange
from serving.gate.keys import ApiKey, Keys
from serving.gate.rates import Bucket
from serving.gate.refusals import (
    Headers,
    Refusal,
    bad_gateway,
    fault,
    nobody,
    request_id_of,
    shed,
    unauthorized,
    unknown_path,
)
from serving.gate.requests import Asked, Kind, read_request
from serving.gate.upstream import (
    ClientWatch,
    End,
    NoAnswerError,
    NoConnectionError,
    NotReadyError,
    Patience,
    Upstream,
    is_not_ready,
    not_passed_on,
    relay,
)

LOG = logging.getLogger("poolwise.gate")
CLASS_HEADER = b"x-poolwise-class"
READY_TIMEOUT_S = 3.0
_GENERATING = {"/v1/chat/completions": Kind.CHAT, "/v1/completions": Kind.COMPLETION}
_DEFAULT_ATTAINMENT = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """What a gate does.

    Parameters
    ----------
    models : tuple of str
        Served model names; requests for others are refused. Empty: the upstream judges.
    slos : mapping of str to Slo
        Promises by request class.
    anonymous : bool
        Whether requests without a key are taken; their class comes from the header
        `x-poolwise-class`.
    admission : bool
        Whether requests may be shed.
    direct : bool
        Whether short prompts may be sent straight to decode workers.
    max_body_bytes : int
    patience_s : float
        How long to go on trying where no router takes requests, seconds.
    """

    models: tuple[str, ...] = ()
    slos: Mapping[str, Slo] = field(default_factory=dict)
    anonymous: bool = False
    admission: bool = True
    direct: bool = True
    max_body_bytes: int = 16 * 1024 * 1024
    patience_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    headers: Headers
    body: bytes
    send: Send
    link: Link


@dataclass(frozen=True, slots=True, kw_only=True)
class _Route:
    """What was decided, and where it may go: cells, each with a worker or by its router."""

    decision: Decision
    ways: tuple[tuple[Cell, str | None], ...]


class Gate:
    """One gate. `open` before the first request, `close` after the last, in one event loop."""

    def __init__(self, settings: GateSettings, cells: Cells, books: Books, keys: Keys) -> None:
        self.settings = settings
        self.cells = cells
        self.books = books
        self._upstream = Upstream()
        self._callers: dict[str, Caller] = {}
        self._keys = keys
        self._ranks: dict[int, float] = {}
        self.use_keys(keys)

    async def open(self) -> None:
        """Make the client for upstreams."""
        await self._upstream.open()

    async def close(self) -> None:
        """Close connections to upstreams."""
        await self._upstream.close()

    def use_keys(self, keys: Keys) -> None:
        """Take these keys from now on; rate limits that did not change go on."""
        self._keys = keys
        known = {DEFAULT_CLASS, *self.settings.slos}
        for key in keys.keys:
            if key.request_class not in known:
                LOG.warning(
                    "key %s is of class %s, which has no objective of its own: it gets those of "
                    "%s. Classes with objectives: %s",
                    *(key.name, key.request_class, DEFAULT_CLASS, ", ".join(sorted(known))),
                )
        priorities = sorted({*keys.priorities, *([0] if self.settings.anonymous else [])})
        lowest = len(priorities) - 1
        self._ranks = {p: (lowest - i) / max(lowest, 1) for i, p in enumerate(priorities)}
        now_s = time.monotonic()
        self._callers = {
            key.key_hash: self._caller_of(key, self._callers.get(key.key_hash), now_s)
            for key in keys.keys
        }

    def _caller_of(self, key: ApiKey, known: Caller | None, now_s: float) -> Caller:
        return Caller(
            name=key.name,
            request_class=key.request_class,
            priority=key.priority,
            rank=self._ranks[key.priority],
            requests=_bucket(key.requests_per_s, known.requests if known else None, now_s),
            tokens=_bucket(key.tokens_per_s, known.tokens if known else None, now_s),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a fault of the gate is logged and told as one."""
        if scope["type"] != "http":
            raise RuntimeError(f"the gate answers HTTP only, not {scope['type']}")
        try:
            await self._answer(scope, receive, send)
        except Exception:  # the last resort: the others' requests go on
            request_id = request_id_of(headers_of(scope))
            LOG.exception("request %s to %s: a fault of the gate", request_id, scope["path"])
            self.books.metrics.count("refused", "fault")
            with contextlib.suppress(RuntimeError):  # its answer has begun: it is broken off
                await refuse(send, fault(request_id))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = cast("str", scope["path"]), cast("str", scope["method"])
        kind = _GENERATING.get(path)
        if kind is not None and method == "POST":
            refusal = await self._generate(scope, receive, send, kind)
        elif method in ("GET", "HEAD"):
            refusal = await self._look(scope, send, path)
        else:
            refusal = unknown_path(path, method, taken=path in _GENERATING)
        if refusal is not None:
            self.books.metrics.count("refused", refusal.reason)
            await refuse(send, refusal)

    async def _look(self, scope: Scope, send: Send, path: str) -> Refusal | None:
        if path == "/healthz":
            await answer(send, 200, [(b"content-type", b"text/plain")], b"ok\n")
        elif path == "/readyz":
            problem = await self._not_ready()
            text = (problem or "ready") + "\n"
            status = 503 if problem else 200
            await answer(send, status, [(b"content-type", b"text/plain")], text.encode())
        elif path == "/metrics":
            self._show_cells()
            kind = b"text/plain; version=0.0.4; charset=utf-8"
            await answer(send, 200, [(b"content-type", kind)], self.books.metrics.text())
        elif path == "/v1/models":
            return await self._models(scope, send)
        else:
            return unknown_path(path, "GET", taken=path in _GENERATING)
        return None

    async def _models(self, scope: Scope, send: Send) -> Refusal | None:
        headers, link = headers_of(scope), link_of(scope)
        caller = self._caller(headers)
        if isinstance(caller, Refusal):
            return caller
        exchange = self._exchange(_LISTING, caller, time.monotonic())
        for cell in self.cells.by_load():
            try:
                with ClientWatch(link):
                    url = f"{cell.url}/v1/models"
                    with await self._upstream.request("GET", url, headers, None) as response:
                        await relay(response, send, link, exchange.meter, exchange.begun)
            except (NoConnectionError, NoAnswerError) as error:
                self._failed(cell, error)
                continue
            return None
        return self._nobody(request_id_of(headers))

    async def _generate(
        self, scope: Scope, receive: Receive, send: Send, kind: Kind
    ) -> Refusal | None:
        """Answer a chat or completion request; a refusal where it is not passed on."""
        arrived_s = time.monotonic()
        headers = headers_of(scope)
        caller = self._caller(headers)
        known = isinstance(caller, Caller)
        body = await read_body(receive, self.settings.max_body_bytes, keep=known)
        if body is None:
            return None
        if isinstance(body, Refusal):
            return caller if isinstance(caller, Refusal) else body
        cells = self.cells.by_load()
        exchange = self._prepared(caller, body, kind, cells, arrived_s)
        if exchange is None:
            return self._nobody(request_id_of(headers))
        if isinstance(exchange, Refusal):
            return exchange
        route = self._decide(exchange, cells)
        name, decision = exchange.caller.request_class, route.decision
        self.books.metrics.count("decisions", name, decision.way.value, decision.why.value)
        if decision.way is Way.SHED:
            refusal = shed(decision)
            exchange.shed(decision, refusal.status)
            return refusal
        exchange.charge()
        request = _Request(headers=headers, body=body, send=send, link=link_of(scope))
        return await self._send_on(exchange, route, request)

    def _prepared(
        self,
        caller: Caller | Refusal,
        body: bytes,
        kind: Kind,
        cells: Sequence[Cell],
        arrived_s: float,
    ) -> Exchange | Refusal | None:
        """The request as understood, or the first thing that is wrong with it; None: no router."""
        if isinstance(caller, Refusal):
            return caller
        disaggregated = any(cell.disaggregated for cell in cells) or not cells
        asked = read_request(body, kind, disaggregated=disaggregated)
        if isinstance(asked, Refusal):
            return asked
        if (wrong := self._wrong_model(asked)) is not None:
            return wrong
        if not cells:
            return None
        exchange = self._exchange(asked, caller, arrived_s)
        return exchange.over_rate() or exchange

    def _caller(self, headers: Headers) -> Caller | Refusal:
        """Who asks, or why nothing of it is passed on."""
        caller = self._who(headers)
        return caller if isinstance(caller, Refusal) else not_passed_on(headers) or caller

    def _who(self, headers: Headers) -> Caller | Refusal:
        """The caller by API key; without a key only where that is allowed."""
        given = header(headers, b"authorization")
        if given is not None and given[:7].lower() == "bearer ":
            key = self._keys.find(given[7:].strip())
            if key is not None:
                return self._callers[key.key_hash]
            if not self.settings.anonymous:
                return unauthorized("this API key is not known here: it was revoked, or mistyped")
        elif not self.settings.anonymous:
            return unauthorized("an API key is needed: send it as `Authorization: Bearer KEY`")
        name = header(headers, CLASS_HEADER) or DEFAULT_CLASS
        if name != DEFAULT_CLASS and name not in self.settings.slos:
            known = ", ".join(sorted({DEFAULT_CLASS, *self.settings.slos}))
            return Refusal(
                status=400,
                reason="unknown_class",
                message=f"there is no request class {name!r} here, only {known}: correct the "
                "header x-poolwise-class, or leave it out",
            )
        return Caller(name="", request_class=name, priority=0, rank=self._ranks.get(0, 0.0))

    def _wrong_model(self, asked: Asked) -> Refusal | None:
        models = self.settings.models
        if asked.model is None or not models or asked.model in models:
            return None
        return Refusal(  # in vLLM's words
            status=404,
            reason="unknown_model",
            message=f"The model `{asked.model}` does not exist.",
            param="model",
        )

    def _exchange(self, asked: Asked, caller: Caller, arrived_s: float) -> Exchange:
        model = asked.model or (self.settings.models[0] if self.settings.models else "")
        count = self.books.prompts.count(asked, model)
        slos = self.settings.slos
        return Exchange(
            books=self.books,
            caller=caller,
            asked=asked,
            model=model,
            count=count,
            prompt=Prompt(
                input_tokens=count.tokens,
                output_tokens=self.books.answers.expected(asked, caller.request_class),
                decode_computes=asked.decode_computes,
            ),
            slo=slos.get(caller.request_class) or slos.get(DEFAULT_CLASS),
            arrived_s=arrived_s,
        )

    def _decide(self, exchange: Exchange, cells: Sequence[Cell]) -> _Route:
        """The least loaded cell that takes it; where none does, what that one said."""
        decision, worker = self._decide_in(exchange, cells[0])
        if worker is not None and self.cells.have_moved():
            cells = self.cells.by_load() or cells
            decision, worker = self._decide_in(exchange, cells[0])
        chosen, said = cells[0], decision
        for cell in cells[1:]:
            if decision.way is not Way.SHED:
                break
            chosen = cell
            decision, worker = self._decide_in(exchange, cell)
        if decision.way is Way.SHED:
            decision = said
        others = [(cell, None) for cell in cells if cell is not chosen]
        own = [(chosen, worker), (chosen, None)] if worker else [(chosen, None)]
        return _Route(decision=decision, ways=(*own, *others))

    def _decide_in(self, exchange: Exchange, cell: Cell) -> tuple[Decision, str | None]:
        """What one cell says, and the decode worker to send to directly.

        Without estimates, or with stale readings, requests are let in.
        """
        now_s = time.monotonic()
        if cell.times is None:
            return Decision(way=Way.ADMIT, why=Why.NO_ESTIMATE), None
        exchange.expect_cached(cell.cached_ratio)
        slo = exchange.slo
        attainment = slo.attainment_ratio if slo else _DEFAULT_ATTAINMENT
        target = cell.direct_worker(now_s) if self.settings.direct else None
        decision = decide(
            Case(
                times=cell.times,
                load=cell.load(now_s),
                prompt=exchange.prompt,
                promise=Promise(slo=slo, rank=exchange.caller.rank),
                slack=cell.errors.slack(cell.times, attainment, now_s),
                worker=None if target is None else target[1],
            )
        )
        if decision.estimate is not None and decision.estimate.extrapolated:
            self.books.metrics.count("extrapolated", cell.name)
        stale = cell.is_stale(now_s)
        if stale:
            self.books.metrics.count("stale", cell.name)
        if decision.way is Way.SHED and (stale or not self.settings.admission):
            why = Why.NO_ESTIMATE if stale else Why.OFF
            decision = Decision(way=Way.ADMIT, why=why, estimate=decision.estimate)
        goes_direct = target is not None and decision.way is Way.DIRECT
        return decision, target[0].name if target is not None and goes_direct else None

    async def _send_on(
        self, exchange: Exchange, route: _Route, request: _Request
    ) -> Refusal | None:
        """Send it the first way that takes it.

        Where none does, nobody computes it: a router that is started again is waited for.
        """
        patience = Patience(time.monotonic() + self.settings.patience_s)
        said, cause, ways = "", "", itertools.cycle(route.ways)
        for tried in itertools.count(1):
            cell, worker = next(ways)
            exchange.go(cell, route.decision, worker=worker)
            url = _url(cell, worker, exchange.asked)
            try:
                end = await self._relay(exchange, url, request, patience.until_s)
            except (NoConnectionError, NotReadyError) as failed:
                self._failed(cell, failed)
                said, cause = "takes no connections now", f"{url}: {failed or 'not ready'}"
            except NoAnswerError as failed:
                self._failed(cell, failed)
                said = "closed the connection before its answer was complete"
                cause = f"{url}: {failed}"
                break
            else:
                exchange.end(end)
                return None
            if tried % len(route.ways) == 0 and not await patience.again():
                break
        exchange.status = 502
        exchange.end(End.FAILED)
        request_id = request_id_of(request.headers)
        LOG.warning("request %s: the server behind the gate %s: %s", request_id, said, cause)
        return bad_gateway(said, request_id)

    async def _relay(self, exchange: Exchange, url: str, request: _Request, until_s: float) -> End:
        end = End.CANCELLED
        passed = request.headers, request.body
        try:
            with (
                ClientWatch(request.link),
                await self._upstream.request("POST", url, *passed) as response,
            ):
                if is_not_ready(response) and time.monotonic() < until_s:
                    raise NotReadyError
                exchange.status = response.status
                end = await relay(
                    response, request.send, request.link, exchange.meter, exchange.begun
                )
        except (NoConnectionError, NotReadyError, NoAnswerError):
            raise
        except BaseException:  # the gate itself is being stopped, or has a fault
            exchange.end(End.FAILED)
            raise
        return end

    async def _not_ready(self) -> str:
        """Why no request can be served now, or an empty text."""
        cells = self.cells.all
        if not cells:
            return self.cells.problem or "no router is known"
        problems = [f"{cell.url} takes requests and answers none" for cell in cells if cell.hangs]
        for cell in self.cells.by_load():
            try:
                async with asyncio.timeout(READY_TIMEOUT_S):
                    url = f"{cell.url}/v1/models"
                    with await self._upstream.request("GET", url, [], None) as response:
                        if response.status < 500:
                            return ""
                        problems.append(f"{cell.url} answers {response.status}")
            except (NoConnectionError, NoAnswerError, TimeoutError) as error:
                problems.append(f"{cell.url}: {str(error) or 'no answer in time'}")
        return "; ".join(problems)

    def _show_cells(self) -> None:
        now_s = time.monotonic()
        metrics = self.books.metrics
        for cell in self.cells.all:
            metrics.show("in_flight", cell.name, cell.ledger.in_flight)
            metrics.show("waiting", cell.name, cell.ledger.waiting)
            metrics.show("kv_usage_ratio", cell.name, cell.load(now_s).kv_usage_ratio)
            metrics.show("cached_ratio", cell.name, cell.cached_ratio if cell.observed else None)
        metrics.show_records(self.books.records.written, self.books.records.dropped)

    def _failed(self, cell: Cell, error: Exception) -> None:
        kind = _KINDS.get(type(error), "no_answer")
        self.books.metrics.count("upstream_errors", cell.name, kind)

    def _nobody(self, request_id: str) -> Refusal:
        problem = self.cells.problem or "no router takes connections and answers"
        LOG.info("request %s: nothing can serve it: %s", request_id, problem)
        return nobody(request_id)


_KINDS = {NoConnectionError: "no_connection", NotReadyError: "not_ready"}
_LISTING = Asked(kind=Kind.COMPLETION, model=None, stream=False, characters=0)


def _bucket(per_s: float | None, known: Bucket | None, now_s: float) -> Bucket | None:
    if per_s is None:
        return None
    if known is not None and known.per_s == per_s:
        return known
    return Bucket(per_s=per_s, at_s=now_s)


def _url(cell: Cell, worker: str | None, asked: Asked) -> str:
    path = "/v1/chat/completions" if asked.kind is Kind.CHAT else "/v1/completions"
    base = next((w.url for w in cell.workers if w.name == worker), cell.url)
    return base + path
