"""One deployment with a plan that waits, and its site, for all tests of a file."""

import shutil
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Past:
    """A folder with a deployment's spec and its database, in which a plan waits."""

    folder: Path
    tokens: dict[str, str]
    plan_id: str

    def copy(self, folder, **spec_changes):
        """The same deployment in a folder of its own."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return make_deployment(folder, **spec_changes)


@pytest.fixture(scope="session")
def past(tmp_path_factory):
    """Planned once: the twin's proof takes seconds."""
    folder = tmp_path_factory.mktemp("past")
    deployment = make_deployment(folder)
    observe(deployment, history(40, **BUSY))
    tokens = tokens_of(deployment.store)
    plan_id = ticked(deployment)
    deployment.store.close()
    return Past(folder, tokens, plan_id)


@pytest.fixture(scope="module")
def world(past, tmp_path_factory):
    """A deployment that tests look at and do not change."""
    folder = tmp_path_factory.mktemp("world")
    deployment = past.copy(folder)
    service = site_of(deployment, folder=folder, requests_per_s=0)
    yield World(deployment, service, past.tokens, past.plan_id)
    deployment.store.close()


@pytest.fixture
def shop(past, tmp_path):
    """A deployment for one test, the plan that waits, and its approver's browser."""
    deployment = past.copy(tmp_path)
    browser = logged_in(site_of(deployment, folder=tmp_path), past.tokens)
    yield deployment, past.plan_id, browser
    browser.app.state.runner.stop()
    deployment.store.close()


def logged_in(service, tokens, role="approver"):
    """The browser of somebody with a role's token."""
    browser = Browser(create_site(service))
    assert browser.send("/dashboard/login", token=tokens[role]).status_code == 303
    return browser
