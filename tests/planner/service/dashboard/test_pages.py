"""What pages say, what forms do, and what happens to bad input; by HTTP."""

import json
import re
import time
from dataclasses import replace

import pytest

from planner.domain.rollout import ApprovalState
from planner.service.dashboard.app import create_site
from planner.service.dashboard.assets import assets
from planner.service.fleet.recorded import RecordedFleetActuator
from tests.planner.service.clients import service_of
from tests.planner.service.dashboard.conftest import Browser, logged_in
from tests.planner.service.dashboard.site import site_of, tokens_of
from tests.planner.service.imagined import make_deployment

SHOP = "/dashboard/deployments/shop"


def revision_on(browser, plan_id):
    text = browser.get(f"/dashboard/plans/{plan_id}").text
    return re.search(r'name="revision" value="(\d+)"', text)[1]


def test_every_page_is_strict_html_without_scripts_or_styles_within(world):
    browser = world.browser("admin")
    paths = ["/", "/plans", "/jobs", "/profiles", "/audit", "/deployments/shop"]
    for path in [*paths, f"/plans/{world.plan_id}", "/deployments/shop/what-if"]:
        answer = browser.get(f"/dashboard{path}")
        assert answer.status_code == 200
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"<style|style=|<script(?! src=)| on\w+=", answer.text)
        assert not re.search(r'(?:src|href)="(?:https?:)?//', answer.text)


def test_assets_are_kept_by_browsers_under_an_address_of_their_content(world):
    browser = world.browser()
    for name, asset in assets().items():
        answer = browser.get(f"/dashboard/static/{name}?v={asset.version}")
        assert answer.content == asset.content
        assert "immutable" in answer.headers["cache-control"]
    assert browser.get("/dashboard/static/../app.py").status_code in (303, 404)
    assert browser.get("/dashboard/static/none.js").status_code == 404


def test_the_overview_shows_fleet_plan_promise_and_what_waits(world):
    text = world.browser("viewer").get("/dashboard/").text
    for words in ("shop", "1P1D", "A plan waits for approval", "USD/h", "asks a person"):
        assert words in text


def test_the_deployment_shows_what_runs_what_comes_and_why(world):
    text = world.browser("viewer").get(SHOP).text
    for words in (
        "1 prefill + 1 decode", "TTFT, p95", "kept", "Forecast beside what came", "80 % band",
        "waits for approval", "Error budget left", "prefill", "Time to first token, p95",
    ):  # fmt: skip
        assert words in text


def test_the_part_of_now_is_a_part_and_no_page(world):
    text = world.browser("viewer").get(f"{SHOP}/now", headers={"HX-Request": "true"}).text
    assert "<html" not in text
    assert "Fleet" in text


def test_a_part_whose_session_has_ended_lets_the_page_ask_for_a_token(world):
    answer = world.browser().get(f"{SHOP}/now", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["hx-refresh"]) == (401, "true")


def test_a_plan_shows_steps_effect_guards_and_reasons(world):
    text = world.browser("viewer").get(f"/dashboard/plans/{world.plan_id}").text
    for words in ("start", "prefill:cpu:tp1", "of requests will be in time", "What guards say",
                  "twin replayed", "What kept it from being cheaper", "asked for by"):  # fmt: skip
        assert words in text


def test_approving_is_what_the_rest_route_does(shop):
    deployment, plan_id, browser = shop
    answer = browser.send(
        f"/dashboard/plans/{plan_id}/approve",
        page=f"/dashboard/plans/{plan_id}",
        reason="fits the launch",
        revision=revision_on(browser, plan_id),
    )
    assert answer.headers["location"] == f"/dashboard/plans/{plan_id}?said=approved"
    approval = deployment.store.plan(plan_id).approval
    assert (approval.state, approval.changed_by) == (ApprovalState.APPROVED, "ann")
    assert approval.reason == "fits the launch"
    assert deployment.store.audit(limit=1)[0].action == "plan.approve"
    assert "Approved." in browser.get(answer.headers["location"]).text


def test_who_approved_may_still_reject_on_the_same_page(shop):
    deployment, plan_id, browser = shop
    page = f"/dashboard/plans/{plan_id}"
    assert "Reject after all" not in browser.get(page).text
    browser.send(f"{page}/approve", page=page)
    assert "Reject after all" in browser.get(page).text
    browser.send(f"{page}/reject", page=page, reason="too early")
    assert deployment.store.plan(plan_id).approval.state is ApprovalState.REJECTED
    assert "Reject after all" not in browser.get(page).text


def test_applying_moves_the_fleet_and_rolling_back_puts_it_back(shop):
    deployment, plan_id, browser = shop
    page = f"/dashboard/plans/{plan_id}"
    browser.send(f"{page}/approve", page=page)
    applied = browser.send(f"{page}/apply", page=page, revision=revision_on(browser, plan_id))
    assert applied.headers["location"] == f"{page}?said=applied"
    assert deployment.actuator.fleet.pools[1].ready > 1
    assert (
        deployment.actuator.fleet.version != deployment.store.plan(plan_id).diff.from_fleet.version
    )
    back = browser.send(f"{page}/rollback", page=page)
    assert back.status_code in (303, 409), back.text


def test_a_plan_that_has_changed_since_it_was_shown_is_not_decided(shop):
    deployment, plan_id, browser = shop
    page, seen = f"/dashboard/plans/{plan_id}", revision_on(browser, plan_id)
    browser.send(f"{page}/reject", page=page, reason="no")
    answer = browser.send(f"{page}/approve", page=page, revision=seen)
    assert answer.status_code == 412
    assert "It has changed since you looked" in answer.text
    assert deployment.store.plan(plan_id).approval.state is ApprovalState.REJECTED


def test_how_to_hand_in_a_fleet_that_is_not_known_is_said_once(past, tmp_path):
    made = past.copy(tmp_path)
    made = replace(made, actuator=RecordedFleetActuator(store=made.store, spec=made.spec))
    browser = logged_in(site_of(made, folder=tmp_path), past.tokens)
    box = browser.get(SHOP).text.partition("The fleet cannot be read")[2].partition("</p>")[0]
    assert box.count("PUT /v1/deployments/shop/fleet") == 1
    browser.app.state.runner.stop()
    made.store.close()


def test_who_asked_for_a_plan_may_not_approve_it_where_the_spec_says_so(past, tmp_path):
    deployment = past.copy(tmp_path, approval={"requester_may_approve": False})
    browser = logged_in(site_of(deployment, folder=tmp_path), past.tokens)
    job = browser.send(f"{SHOP}/plan", page="/dashboard/")
    plan_id = ended(browser, job).partition("/dashboard/plans/")[2]
    page = f"/dashboard/plans/{plan_id}"
    assert "wants somebody else to approve it" in browser.get(page).text
    answer = browser.send(f"{page}/approve", page=page)
    assert answer.status_code in (403, 409)
    assert deployment.store.plan(plan_id).approval.state is ApprovalState.PENDING
    browser.app.state.runner.stop()
    deployment.store.close()


def ended(browser, asked):
    """Where the end of a job leads to, or its own page."""
    assert asked.status_code == 303, asked.text
    path = asked.headers["location"].partition("?")[0]
    runner = browser.app.state.runner
    job_id = path.rpartition("/")[2]
    for _ in range(3000):
        if runner.jobs.job(job_id).state.value in ("done", "failed", "cancelled"):
            break
        time.sleep(0.02)
    answer = browser.get(f"{path}/progress")
    return answer.headers.get("hx-redirect", path)


def test_pause_resume_and_mode_are_the_orders_of_the_rest_routes(shop):
    deployment, _, browser = shop
    browser.send(f"{SHOP}/pause", page=SHOP, what="in", hours="4", reason="network work")
    (order,) = deployment.store.directives("shop").in_force(at=deployment.clock())
    assert (order.subject, order.set_by, order.reason) == ("in", "ann", "network work")
    assert order.until_at is not None
    assert "no capacity goes" in browser.get(SHOP).text
    browser.send(f"{SHOP}/resume", page=SHOP, what="all")
    assert deployment.store.directives("shop").in_force(at=deployment.clock()) == ()
    browser.send(f"{SHOP}/mode", page=SHOP, mode="advise")
    assert "<b>advise</b>" in browser.get("/dashboard/").text
    browser.send(f"{SHOP}/mode", page=SHOP, mode="spec")
    assert "<b>approve</b>" in browser.get("/dashboard/").text
    actions = [line.action for line in deployment.store.audit(limit=4)]
    assert actions == ["mode.take_back", "mode.set", "pause.take_back", "pause.set"]


@pytest.mark.parametrize(
    ("path", "fields", "status", "words"),
    [
        ("/deployments/shop/pause", {"what": "sideways"}, 422, "what"),
        ("/deployments/shop/pause", {"hours": "-1"}, 422, "hours"),
        ("/deployments/shop/pause", {"hours": "²"}, 422, "hours"),
        ("/deployments/shop/pause", {"reason": "x" * 2001}, 422, "2,000 characters"),
        ("/deployments/shop/mode", {"mode": "wild"}, 422, "mode"),
        ("/deployments/none/pause", {}, 404, "none"),
        ("/plans/none/approve", {}, 404, "none"),
        ("/plans/PLAN/approve", {"revision": "seven"}, 422, "revision"),
        ("/plans/PLAN/approve", {"revision": "٣"}, 422, "revision"),
        ("/plans/PLAN/apply", {}, 409, "only an approved plan"),
        ("/plans/PLAN/rollback", {}, 409, "can be rolled back"),
        ("/jobs/none/cancel", {}, 404, "none"),
        ("/deployments/shop/what-if", {"rate": "many"}, 422, "a number is wanted"),
        ("/deployments/shop/what-if", {"rate": "-2"}, 422, "above 0"),
        ("/deployments/shop/what-if", {"rate": "1"}, 422, "nothing is changed"),
    ],
)
def test_bad_input_is_a_page_that_says_so(world, path, fields, status, words):
    browser = world.browser("admin")
    url = f"/dashboard{path.replace('PLAN', world.plan_id)}"
    answer = browser.send(url, page="/dashboard/", **fields)
    assert (answer.status_code, words in answer.text.lower()) == (status, True)
    assert "<html" in answer.text


@pytest.mark.parametrize(
    "path",
    ["/plans?state=odd", "/plans?cursor=odd", "/plans?deployment=none", "/audit?before=x",
     "/deployments/none", "/deployments/shop/decisions?cursor=odd", "/plans/none", "/jobs/none",
     "/reports/none", "/profiles/none", "/jobs?cursor=%00"],
)  # fmt: skip
def test_bad_addresses_are_pages_that_say_so(world, path):
    answer = world.browser("admin").get(f"/dashboard{path}")
    assert answer.status_code in (404, 422)
    assert "<html" in answer.text


def test_what_people_write_is_shown_as_they_wrote_it(shop):
    _, plan_id, browser = shop
    page = f"/dashboard/plans/{plan_id}"
    browser.send(f"{page}/reject", page=page, reason="<script>alert(1)</script> & more")
    text = browser.get(page).text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text


def test_a_server_without_deployments_says_what_to_do(world):
    service = service_of(world.deployment)
    service.registry.remove("shop")
    assert "None is served yet" in logged_in(service, world.tokens).get("/dashboard/").text


def test_a_new_deployment_says_what_to_do_where_nothing_is_known(tmp_path):
    deployment = make_deployment(tmp_path)
    tokens = tokens_of(deployment.store)
    browser = logged_in(service_of(deployment), tokens)
    text = browser.get(SHOP).text
    for words in ("POOLWISE_WATCH", "There is none yet", "Nothing is planned yet", "Nothing yet."):
        assert words in text
    assert "There is none." in browser.get("/dashboard/plans").text
    assert "Nothing was asked for lately" in browser.get("/dashboard/jobs").text
    deployment.store.close()


def test_a_fleet_that_cannot_be_read_leaves_the_rest_of_the_page(shop, monkeypatch):
    from planner.domain.errors import OperationError

    deployment, _, browser = shop

    def away():
        raise OperationError("the cluster does not answer")

    monkeypatch.setattr(deployment.actuator, "read_fleet", away)
    answer = browser.get(SHOP)
    assert (answer.status_code, "the cluster does not answer" in answer.text) == (200, True)


def test_a_what_if_is_a_job_that_ends_with_both_fleets(shop):
    _, _, browser = shop
    asked = browser.send(f"{SHOP}/what-if", page=f"{SHOP}/what-if", rate="2", isl="1.5")
    path = ended(browser, asked)
    text = browser.get(path).text
    assert "Side by side" in text, text[-1500:]
    assert "rate=x2,isl=x1.5" in text
    assert "as things are" in text


def test_a_replay_is_a_job_that_says_whether_promises_are_kept(shop):
    _, plan_id, browser = shop
    page = f"/dashboard/plans/{plan_id}"
    text = browser.get(ended(browser, browser.send(f"{page}/replay", page=page))).text
    assert re.search("every promise is kept|a promise is not kept|not clear", text)
    assert "p95" in text


def test_the_audit_log_names_who_did_what(shop):
    _, plan_id, browser = shop
    page = f"/dashboard/plans/{plan_id}"
    browser.send(f"{page}/approve", page=page)
    text = browser.get("/dashboard/audit").text
    assert "plan.approve" in text
    assert "ann" in text


def test_profiles_show_where_they_come_from(world):
    browser = world.browser("viewer")
    text = browser.get("/dashboard/profiles").text
    (profile,) = world.deployment.spec.profiles
    assert profile.profile_id in text
    page = browser.get(f"/dashboard/profiles/{profile.profile_id}").text
    assert profile.provenance.source in page
    assert "decode step" in page


def test_a_server_that_asks_for_no_token_shows_its_pages_to_localhost(shop):
    browser = Browser(create_site(service_of(shop[0], insecure_local=True)))
    assert "no token asked" in browser.get("/dashboard/").text
    assert browser.get("/dashboard/login").headers["location"] == "/dashboard/"
    assert browser.send(f"{SHOP}/pause", page=SHOP, what="out").status_code == 303
    elsewhere = browser.get("/dashboard/", headers={"Host": "evil.example"})
    assert elsewhere.status_code == 403


def test_who_reads_without_a_token_sees_no_form(world):
    browser = Browser(create_site(service_of(world.deployment, anonymous_reads=True)))
    text = browser.get(SHOP).text
    assert "reading without a token" in text
    assert 'method="post"' not in text


def test_the_document_of_the_api_does_not_list_pages(world):
    paths = json.loads(world.browser().get("/openapi.json").text)["paths"]
    assert not [path for path in paths if "dashboard" in path or path == "/"]
