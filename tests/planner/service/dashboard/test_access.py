"""Who gets which page and whose forms are taken: sessions, roles, other people's pages."""

import re

import pytest

from planner.service.api.rights import RIGHTS
from planner.service.dashboard.app import ROUTERS
from planner.service.dashboard.pages import own_path
from planner.service.dashboard.rights import OF_PAGES, PAGES, PREFIX
from planner.service.security.access import AccessRole
from planner.service.security.sessions import comes_from_elsewhere

WRITES = [route for route, role in PAGES.items() if route.startswith("POST ") and role]
READS = [route for route, role in PAGES.items() if route.startswith("GET ") and role]


def filled(route, world):
    path = route.partition(" ")[2].replace("{name}", "shop").replace("{plan_id}", world.plan_id)
    return re.sub(r"\{\w+\}", "x-1", path)


def test_every_route_of_the_pages_stands_in_the_table():
    served = {
        f"{method} {PREFIX}{route.path}"
        for router in ROUTERS
        for route in router.routes
        for method in route.methods - {"HEAD"}
    }
    assert served | {"GET /", "GET /dashboard"} == set(PAGES)


def test_a_form_takes_the_role_that_its_rest_route_takes():
    pairs = {
        "approve": "POST /v1/plans/{plan_id}/approve",
        "reject": "POST /v1/plans/{plan_id}/reject",
        "apply": "POST /v1/plans/{plan_id}/apply",
        "rollback": "POST /v1/plans/{plan_id}/rollback",
        "pause": "POST /v1/deployments/{name}/pause",
        "resume": "POST /v1/deployments/{name}/resume",
        "mode": "PUT /v1/deployments/{name}/mode",
        "plan": "POST /v1/plans",
        "what-if": "POST /v1/what-ifs",
        "report": "POST /v1/reports",
        "replay": "POST /v1/simulations",
        "cancel": "DELETE /v1/jobs/{job_id}",
    }
    ends = {route: route.rpartition("/")[2] for route in WRITES}
    assert {route: PAGES[route] for route in WRITES} == {
        route: RIGHTS[pairs[end]] for route, end in ends.items()
    }


def test_who_has_no_session_is_sent_to_log_in_and_back(world):
    browser = world.browser()
    assert browser.get("/").headers["location"] == "/dashboard/"
    answer = browser.get(f"/dashboard/plans/{world.plan_id}")
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/dashboard/login?next=/plans/{world.plan_id}"
    page = browser.get(answer.headers["location"])
    assert "Log in" in page.text
    back = browser.send(
        "/dashboard/login", token=world.tokens["viewer"], next=f"/plans/{world.plan_id}"
    )
    assert back.headers["location"] == f"/dashboard/plans/{world.plan_id}"
    assert browser.get(back.headers["location"]).status_code == 200


def test_the_session_is_a_cookie_that_no_script_reads_and_no_other_page_sends(world):
    browser = world.browser()
    answer = browser.send("/dashboard/login", token=world.tokens["viewer"])
    (line,) = [c for c in answer.headers.get_list("set-cookie") if "session" in c]
    for word in ("HttpOnly", "SameSite=strict", "Path=/dashboard", "Max-Age=43200"):
        assert word in line
    assert world.tokens["viewer"] not in answer.text + str(answer.headers["location"])


def test_a_bad_token_is_told_and_counted_as_the_api_counts_it(world):
    browser = world.browser()
    answers = [browser.send("/dashboard/login", token=f"pw_{i:040}") for i in range(11)]
    assert [a.status_code for a in answers] == [401] * 10 + [429]
    assert "Nobody has this token" in answers[0].text
    assert "too many bad tokens" in answers[-1].text.lower()
    assert browser.send("/dashboard/login", token="").status_code == 422


def test_logging_out_ends_it(world):
    browser = world.browser("viewer")
    assert browser.get("/dashboard/").status_code == 200
    assert browser.send("/dashboard/logout", page="/dashboard/").status_code == 303
    assert browser.get("/dashboard/").status_code == 303


def test_the_cookie_opens_no_route_of_the_api(world):
    browser = world.browser("admin")
    assert browser.get("/v1/plans").status_code == 401


@pytest.mark.parametrize("route", READS)
def test_every_page_for_every_role(world, route):
    needed = PAGES[route]
    path = filled(route, world)
    for role in ("viewer", "approver"):
        status = world.browser(role).get(path).status_code
        if AccessRole(role).may(needed):
            assert status in (200, 404)
        else:
            assert status == 403
    assert world.browser().get(path).status_code == 303


@pytest.mark.parametrize("route", WRITES)
def test_a_form_without_its_proof_is_refused_even_from_an_admin(world, route):
    browser = world.browser("admin")
    for fields in ({}, {"form_token": "0" * 64}):
        answer = browser.request("POST", filled(route, world), data={"reason": "x", **fields})
        assert answer.status_code == 403
        assert "not made for your session" in answer.text


@pytest.mark.parametrize("route", WRITES)
def test_a_form_from_another_page_is_refused(world, route):
    browser = world.browser("admin")
    proof = browser.form_token("/dashboard/")
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        answer = browser.request(
            "POST", filled(route, world), data={"form_token": proof}, headers=headers
        )
        assert (answer.status_code, "another origin" in answer.text) == (403, True)


@pytest.mark.parametrize("route", WRITES)
def test_a_role_that_is_too_low_is_refused_by_the_server(world, route):
    needed = PAGES[route]
    if needed is AccessRole.VIEWER:
        assert world.browser().request("POST", filled(route, world)).status_code == 303
        return
    browser = world.browser("viewer")
    answer = browser.send(filled(route, world), page="/dashboard/")
    assert answer.status_code == 403
    assert "vic is a viewer" in answer.text.lower()


def test_somebody_elses_form_is_refused(world):
    ann, olga = world.browser("approver"), world.browser("operator")
    stolen = olga.form_token("/dashboard/")
    answer = ann.request("POST", "/dashboard/deployments/shop/pause", data={"form_token": stolen})
    assert answer.status_code == 403


def test_json_is_no_form(world):
    browser = world.browser("admin")
    answer = browser.request("POST", "/dashboard/deployments/shop/pause", json={"what": "all"})
    assert answer.status_code == 415


def test_a_viewer_sees_no_button_that_the_server_would_refuse(world):
    plan = f"/dashboard/plans/{world.plan_id}"
    seen = world.browser("viewer").get(plan).text
    assert "takes an approver" in seen
    assert not re.search(r'action="[^"]*/(approve|reject|apply)"', seen)
    assert (
        "Orders to the loop" not in world.browser("viewer").get("/dashboard/deployments/shop").text
    )
    assert "/approve" in world.browser("approver").get(plan).text


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x", "/none", "x"],
)
def test_a_login_leads_back_to_our_own_pages_only(elsewhere):
    assert own_path(elsewhere) == "/"


def test_a_login_leads_back_with_what_was_asked():
    assert own_path("/plans?state=pending") == "/plans?state=pending"


def test_who_says_neither_site_nor_origin_is_no_browser():
    assert not comes_from_elsewhere({"host": "a:1"})
    assert not comes_from_elsewhere({"host": "a:1", "origin": "http://a:1"})
    assert comes_from_elsewhere({"host": "a:1", "origin": "http://b:1"})
    assert comes_from_elsewhere({"host": "a:1", "origin": "null"})


def test_a_link_from_elsewhere_is_asked_again_by_our_own_page(world):
    headers = {"Sec-Fetch-Site": "cross-site"}
    answer = world.browser().get("/dashboard/plans", headers=headers)
    assert (answer.status_code, 'content="0; url=/dashboard/plans"' in answer.text) == (200, True)


def test_the_table_of_pages_gives_nothing_to_methods_that_are_not_there(world):
    assert OF_PAGES.right_to("DELETE", "/dashboard/plans") is None
    browser = world.browser("admin")
    assert browser.request("DELETE", "/dashboard/plans").status_code == 405
    assert browser.get("/dashboard/none").status_code == 404
