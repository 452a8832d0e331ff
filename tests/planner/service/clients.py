"""Requests to the API over its transport."""

import asyncio

import httpx

from planner.service.api import Service, create_app
from planner.service.election.elector import NoElection
from planner.service.election.leadership import Leadership
from planner.service.hosting.registry import Registry, Served
from planner.service.security.tokens import hash_of, new_token
from tests.planner.service.examples import NOON, history
from tests.planner.service.imagined import BUSY


class Client:
    """Requests to an app without a socket."""

    def __init__(self, app, token):
        self.app = app
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.address = "127.0.0.1"

    def request(self, method, path, **more):
        async def answer():
            transport = httpx.ASGITransport(
                app=self.app, raise_app_exceptions=False, client=(self.address, 4711)
            )
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost", headers=self.headers
            ) as client:
                return await client.request(method, path, **more)

        return asyncio.run(answer())

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, json=None, **more):
        return self.request("POST", path, json=json, **more)

    def put(self, path, json=None):
        return self.request("PUT", path, json=json)

    def delete(self, path):
        return self.request("DELETE", path)


def service_of(*deployments, **options) -> Service:
    """What an API serves over deployments on one store whose specs stay, without an election."""
    registry, first = Registry(), deployments[0]
    for one in deployments:
        leadership = Leadership(NoElection(), one, lambda *_, one=one: one.actuator)
        registry.add(Served(leadership=leadership))
    return Service(
        registry=registry,
        store=first.store,
        lease=first.spec.name,
        clock=first.clock,
        **options,
    )


def client_of(deployment, *, name="ann", **options) -> Client:
    """A client that may write, of a new app over a deployment; the store's other tokens end."""
    token = new_token()
    deployment.store.tokens().replace_all(hash_of(token), name=name, at=NOON)
    return Client(create_app(service_of(deployment, **options)), token)


def make_plan(client, **body):
    answer = client.post("/v1/plans", {"history": history(**BUSY), **body})
    assert answer.status_code == 201, answer.text
    return answer.json()
