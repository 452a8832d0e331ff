"""Requests to the API over its transport."""

import asyncio

import httpx

from planner.service.api import Service, create_app
from planner.service.security.tokens import hash_of, new_token
from tests.planner.service.examples import NOON, history
from tests.planner.service.imagined import BUSY


class Client:
    """Requests to an app without a socket."""

    def __init__(self, app, token):
        self.app = app
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def request(self, method, path, **more):
        async def answer():
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
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


def client_of(deployment, *, name="ann", **options) -> Client:
    """A client that may write, of a new app over a deployment; the store's other tokens end."""
    token = new_token()
    deployment.store.tokens().replace_all(hash_of(token), name=name, at=NOON)
    return Client(create_app(Service(deployment=deployment, **options)), token)


def make_plan(client, **body):
    answer = client.post("/v1/plans", {"history": history(**BUSY), **body})
    assert answer.status_code == 201, answer.text
    return answer.json()
