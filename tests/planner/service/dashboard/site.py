"""A deployment with a past, and the whole site over it: in memory, or on a port."""

import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import uvicorn

from planner.service.api import Service
from planner.service.dashboard.app import create_site
from planner.service.hosting.registry import Registry
from planner.service.listening import listening
from planner.service.live.watching import LiveSignals
from planner.service.loop.slow_tick import tick
from planner.service.security.access import AccessRole
from planner.service.security.tokens import hash_of, new_token
from planner.service.spec.versions import SpecReader, Specs, content_of
from planner.service.store.profiles import StoredProfiles
from planner.service.store.specs import SpecVersion
from serving.telemetry.whole import Promised
from tests.planner.service.clients import service_of
from tests.planner.service.examples import NOON
from tests.planner.service.signals import example_signals


def site_of(*deployments, folder, **options) -> Service:
    """A service over deployments whose spec lies in a folder, with half an hour of signals."""
    service, registry = service_of(*deployments, **options), Registry()
    for served in service.registry.all():
        registry.add(replace(served, live=live_of(served), specs=specs_of(served, folder)))
    service.registry = registry
    return service


def live_of(served, *, rate_rps: float = 20.0) -> LiveSignals:
    """What was seen of a deployment."""
    one = served.deployment
    live = LiveSignals(
        source=None,
        interval_s=10.0,
        promised=Promised(spec=one.spec, model=one.model),
        store=one.store,
        clock=one.clock,
    )
    for back in range(30, -1, -1):
        at, wave = NOON - timedelta(minutes=back), 1.0 + 0.3 * ((back * 7) % 11) / 11
        live.put(example_signals(at=at, rate_rps=rate_rps * wave, replicas=4))
    return live


def specs_of(served, folder) -> Specs:
    """The spec in a folder, as it may be put again."""
    one = served.deployment
    version = SpecVersion(
        version=1,
        spec_id=one.spec.spec_id,
        given=one.spec.spec_id,
        content=content_of(folder / "spec.yaml"),
        allow_estimates=False,
        put_at=NOON,
        put_by="serve",
    )
    return Specs(
        store=one.store,
        reader=SpecReader(profiles=StoredProfiles(access=one.store.access)),
        given=version.given,
        hands=lambda _spec: lambda *_: one.actuator,
        leadership=served.leadership,
        now=version,
    )


def ticked(deployment) -> str:
    """Let the loop look once; the id of the plan that it made."""
    report = tick(deployment, now=NOON)
    assert report.decision is not None, report.reason
    return report.decision.plan.plan_id


def tokens_of(store) -> dict[str, str]:
    """A token for everybody: `ann` the approver, and one person of each other role."""
    names = {"viewer": "vic", "operator": "olga", "approver": "ann", "admin": "ada"}
    tokens = {}
    for role in AccessRole:
        tokens[role.value] = new_token()
        store.tokens().create(
            hash_of(tokens[role.value]), name=names[role.value], role=role, at=NOON, by="test"
        )
    return tokens


@contextmanager
def on_a_port(service: Service):
    """The site of a service on a port of loopback; its address."""
    listener = listening("127.0.0.1", 0)
    config = uvicorn.Config(create_site(service), log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listener.close()
