"""The dashboard in a real browser, over a deployment of real processes that really moves."""

import os
import signal
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from serving.fleet.control import ControlClient
from tests.planner.service.examples import write_spec
from tests.planner.service.served import served
from tests.planner.service.stubbed import start, write_engine

pytestmark = pytest.mark.browser

PATIENCE_MS = 120_000
DESKTOP, PHONE = 1280, 360
SERIOUS = ("serious", "critical")
WINDOW_S = 600.0
"""So long that no test lasts until the idle engines have been watched for a window."""
POOLS = [
    {"model": "tiny", "role": role, "accelerator": "cpu", "max_replicas": 3}
    for role in ("prefill", "decode")
]
"""So few that a machine with two cores starts what is planned in seconds."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A deployment of stub engines, and `poolwise serve` over it; (folder, address, tokens)."""
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POOLWISE_STATE_DIR", str(folder / "state"))
        patch.setenv("POOLWISE_ENGINE_PYTHON", str(write_engine(folder)))
        patch.setenv("POOLWISE_WATCH_INTERVAL_S", "1")
        write_spec(
            folder,
            target={"kind": "local"},
            loop={"mode": "approve"},
            pools=POOLS,
            forecast={"window_s": WINDOW_S, "horizon_windows": 2},
        )
        up = start(dict(os.environ), folder, "--name", "tiny", "--accelerator", "cpu")
        try:
            with (folder / "log").open("w") as log, served(folder, log=log) as (_, facts):
                yield folder, facts["url"], _tokens(facts)
        finally:
            up.send_signal(signal.SIGINT)
            up.communicate(timeout=60)


def _tokens(facts) -> dict[str, str]:
    """The admin's token, and one of a person of each other role, who was handed load."""
    admin = {"Authorization": f"Bearer {facts['token']}"}
    tokens = {"admin": facts["token"]}
    for name, role in (("ann", "approver"), ("vic", "viewer")):
        body = {"name": name, "role": role}
        made = httpx.post(f"{facts['url']}/v1/tokens", json=body, headers=admin, timeout=60)
        tokens[role] = made.json()["token"]
    end_at = datetime.now(UTC).replace(microsecond=0)
    windows = [
        {
            "start_at": (end_at - back * timedelta(seconds=WINDOW_S)).isoformat(),
            "window_s": WINDOW_S,
            "requests": int(10 * WINDOW_S),
            "input_tokens": int(8_000 * WINDOW_S),
            "output_tokens": int(600 * WINDOW_S),
        }
        for back in range(20, 0, -1)
    ]
    here = f"{facts['url']}/v1/deployments/shop/observations"
    assert httpx.post(here, json={"history": windows}, headers=admin, timeout=60).is_success
    return tokens


class Visit:
    """A page of somebody's browser, what it complained of, and whom else it asked."""

    def __init__(self, chromium, url, *, width=DESKTOP, scheme="light"):
        self.context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, base_url=url
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.width, self.complaints, self.asked = width, [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "request", lambda r: None if r.url.startswith(url) else self.asked.append(r.url)
        )

    def log_in(self, token):
        self.page.goto("/")
        self.page.get_by_label("Token", exact=True).fill(token)
        self.page.get_by_role("button", name="Log in").click()
        self.page.get_by_role("heading", name="Deployments").wait_for()
        return self

    def check(self):
        """Nothing to complain of, nobody else asked, as wide as the window, and accessible."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        serious = [
            (v["id"], [node["html"][:200] for node in v["nodes"]])
            for v in found
            if v["impact"] in SERIOUS
        ]
        assert serious == [], self.page.url
        assert self.page.evaluate("document.documentElement.scrollWidth") <= self.width
        assert (self.complaints, self.asked) == ([], [])

    def check_all_over(self):
        """The same at a desk by day, and on a phone at night."""
        for width, scheme in ((PHONE, "dark"), (DESKTOP, "light")):
            self.width = width
            self.page.set_viewport_size({"width": width, "height": 900})
            self.page.emulate_media(color_scheme=scheme)
            self.check()


@pytest.fixture
def visit(chromium, site):
    """Opens visits of this site, logged in with a role's token."""
    made = []

    def opened(role="approver", **look):
        made.append(Visit(chromium, site[1], **look))
        return made[-1].log_in(site[2][role]) if role else made[-1]

    yield opened
    for one in made:
        one.context.close()


def plan_now(page):
    """Ask for a plan, and wait for its page."""
    page.goto("/dashboard/deployments/shop")
    page.get_by_role("button", name="Plan now").click()
    page.wait_for_url("**/dashboard/plans/*")


def workers(folder) -> dict[str, int]:
    listed = ControlClient(folder / "state" / "local").ask("list")["workers"]
    roles = [worker["role"] for worker in listed if worker["state"] == "ready"]
    return {role: roles.count(role) for role in sorted(set(roles))}


def test_the_first_visit_asks_for_a_token_and_says_where_there_is_one(visit):
    first = visit(None)
    first.page.goto("/")
    assert first.page.url.endswith("/dashboard/login?next=/")
    assert "poolwise token create" in first.page.inner_text("main")
    first.check()
    first.page.get_by_label("Token", exact=True).fill("pw_" + "0" * 40)
    first.page.keyboard.press("Enter")
    assert "Nobody has this token" in first.page.get_by_role("alert").inner_text()


def test_every_page_fits_and_is_accessible_and_asks_nobody_else(visit):
    """Each width and each scheme is looked at once: that is what takes time."""
    seen = visit("admin")
    for path in (
        "/", "/deployments/shop", "/deployments/shop/what-if", "/deployments/shop/decisions",
        "/plans", "/jobs", "/audit", "/profiles",
    ):  # fmt: skip
        seen.page.goto(f"/dashboard{path}")
        seen.check_all_over()
    seen.page.locator(".lines a").first.click()
    seen.page.wait_for_url("**/dashboard/profiles/*")
    seen.check_all_over()


def test_a_plan_that_is_rejected_moves_nothing(visit, site):
    ann = visit()
    plan_now(ann.page)
    ann.check()
    before = workers(site[0])
    ann.page.get_by_label("Comment").fill("not before the launch")
    ann.page.get_by_role("button", name="Reject").click()
    assert "Rejected." in ann.page.get_by_role("status").inner_text()
    text = ann.page.inner_text("#state")
    assert "not before the launch" in text.lower()
    assert ann.page.get_by_role("button", name="Approve").count() == 0
    assert workers(site[0]) == before
    ann.check()


def test_a_plan_is_approved_and_applied_and_the_fleet_is_seen_to_change(visit, site):
    ann, olga = visit(), visit("viewer", width=PHONE)
    assert workers(site[0]) == {"decode": 1, "prefill": 1}
    olga.page.goto("/dashboard/deployments/shop")
    plan_now(ann.page)
    path = ann.page.url
    ann.page.get_by_label("Comment").fill("fits the launch")
    ann.page.get_by_role("button", name="Approve").click()
    assert "Approved." in ann.page.get_by_role("status").inner_text()
    ann.page.get_by_role("button", name="Apply now").click()
    ann.page.locator("#state-heading .badge", has_text="applied").wait_for()
    planned = ann.page.inner_text("h1").partition("→")[2].strip()
    # Nobody loads the page anew: it shows what was done by itself.
    olga.page.locator("#now .big", has_text=planned).first.wait_for()
    deadline = time.monotonic() + 60
    while workers(site[0]) == {"decode": 1, "prefill": 1} and time.monotonic() < deadline:
        time.sleep(0.2)
    now = workers(site[0])
    assert f"{now['prefill']}P{now['decode']}D" == planned
    ann.page.goto("/dashboard/audit")
    assert "fits the launch" in ann.page.inner_text("main")
    ann.page.goto(path)
    ann.check()
    olga.check()


def test_a_viewer_may_look_at_a_plan_and_no_more(visit):
    vic = visit("viewer", width=PHONE)
    vic.page.goto("/dashboard/plans")
    vic.page.locator("tbody a").first.click()
    assert vic.page.locator("form[method=post]:not(.who form)").count() == 1  # the twin's replay
    vic.check()


def test_a_what_if_shows_both_fleets_beside_each_other(visit):
    ann = visit(width=PHONE)
    ann.page.goto("/dashboard/deployments/shop/what-if")
    ann.page.get_by_label("Requests", exact=True).fill("0.2")
    ann.page.get_by_role("button", name="Ask").click()
    ann.page.get_by_text("Side by side").wait_for()
    assert "rate=x0.2" in ann.page.inner_text("main")
    ann.check()


def test_scaling_is_paused_and_goes_on_again(visit):
    ann = visit()
    ann.page.goto("/dashboard/deployments/shop")
    ann.page.get_by_label("Let", exact=True).select_option("in")
    ann.page.get_by_role("button", name="Pause").click()
    assert "no capacity goes" in ann.page.inner_text("#now")
    ann.check()
    ann.page.get_by_role("button", name="Resume").click()
    assert "Resumed." in ann.page.get_by_role("status").inner_text()
    assert "no capacity goes" not in ann.page.inner_text("#now")


def test_what_is_open_stays_open_and_live_updates_can_be_stopped(visit):
    ann = visit()
    ann.page.clock.install()
    ann.page.goto("/dashboard/deployments/shop")
    with ann.page.expect_response("**/now"):
        ann.page.clock.run_for(5_500)
    switch = ann.page.get_by_role("button", name="Live updates")
    switch.click()
    assert switch.get_attribute("aria-pressed") == "false"
    asked = []
    ann.page.on("request", lambda request: asked.append(request.url))
    ann.page.clock.run_for(11_000)
    ann.page.wait_for_timeout(200)  # a request that was sent would be seen by now
    assert asked == []
    ann.check()


def test_everything_is_reached_by_keyboard(visit):
    ann = visit()
    ann.page.keyboard.press("Tab")
    assert ann.page.evaluate("document.activeElement.textContent") == "To the content"
    ann.page.keyboard.press("Enter")
    ann.page.keyboard.press("Tab")
    assert ann.page.evaluate("document.activeElement.textContent") == "shop"
    ann.page.keyboard.press("Enter")
    ann.page.get_by_role("heading", name="shop", exact=True).wait_for()


def test_who_logs_out_is_asked_again(visit):
    ann = visit()
    ann.page.get_by_role("button", name="Log out").click()
    ann.page.goto("/dashboard/plans")
    assert ann.page.url.endswith("/dashboard/login?next=/plans")
