"""One deployment with a plan that waits, and its site, for all tests of a file."""

from dataclasses import dataclass

import pytest

from planner.service.dashboard.app import create_site
from tests.planner.service.clients import Client
from tests.planner.service.dashboard.site import site_of, ticked, tokens_of
from tests.planner.service.examples import history
from tests.planner.service.imagined import BUSY, make_deployment, observe


@dataclass
class World:
    """A site, whose tokens are known, over a deployment whose fleet is too small."""

    deployment: object
    service: object
    tokens: dict[str, str]
    plan_id: str

    def browser(self, role=None):
        """Somebody's browser: it keeps cookies, and is logged in with a role's token."""
        made = Browser(create_site(self.service))
        if role is not None:
            answer = made.send("/dashboard/login", token=self.tokens[role])
            assert answer.status_code == 303, answer.text
        return made


class Browser(Client):
    """Sends cookies and forms as a browser does."""

    def __init__(self, app):
        super().__init__(app, None)
        self.cookies = {}

    def request(self, method, path, **more):
        headers = {"Sec-Fetch-Site": "same-origin", **more.pop("headers", {})}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        answer = super().request(method, path, headers=headers, **more)
        for name, value in answer.cookies.items():
            self.cookies[name] = value
        for line in answer.headers.get_list("set-cookie"):
            if "Max-Age=0" in line:
                self.cookies.pop(line.partition("=")[0], None)
        return answer

    def form_token(self, page="/dashboard/login"):
        """What a form of a page holds."""
        text = self.get(page).text
        return text.partition('name="form_token" value="')[2].partition('"')[0]

    def send(self, path, page=None, **fields):
        """Send a form from a page of ours."""
        proof = self.form_token(page or "/dashboard/login")
        return self.request("POST", path, data={"form_token": proof, **fields})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dashboard")
    deployment = make_deployment(folder)
    observe(deployment, history(40, **BUSY))
    tokens = tokens_of(deployment.store)
    plan_id = ticked(deployment)
    service = site_of(deployment, folder=folder, requests_per_s=0)
    yield World(deployment, service, tokens, plan_id)
    deployment.store.close()
