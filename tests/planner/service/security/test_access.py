"""Who may call what: every role at every route, tokens as they end, limits, browsers."""

import asyncio
import re
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import event

from planner.service.api import create_app
from planner.service.api.rights import OF_API, RIGHTS
from planner.service.security.access import AccessRole
from planner.service.security.tokens import hash_of, new_token
from tests.planner.service.clients import Client, service_of
from tests.planner.service.examples import NOON, fleet, history
from tests.planner.service.imagined import make_deployment

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def deployment(tmp_path):
    made = make_deployment(tmp_path)
    yield made
    made.store.close()


def token_for(deployment, name, role, **more):
    token = new_token()
    deployment.store.tokens().create(
        hash_of(token), name=name, role=AccessRole(role), at=NOON, by="test", **more
    )
    return token


def client_of(deployment, token=None, **options):
    return Client(create_app(service_of(deployment, **options)), token)


def as_role(client, token):
    client.headers = {"Authorization": f"Bearer {token}"} if token else {}
    return client


def call(client, route):
    method, path = route.split(" ")
    filled = re.sub(r"\{name\}", "shop", re.sub(r"\{\w*(id|token_name)\}", "x-1", path))
    return client.request(method, filled, content=b"{}", headers=JSON)


@pytest.fixture(scope="module")
def everybody(tmp_path_factory):
    """One server, and a token of each role."""
    deployment = make_deployment(tmp_path_factory.mktemp("access"))
    tokens = {role.value: token_for(deployment, f"a-{role}", role) for role in AccessRole}
    client = client_of(deployment, requests_per_s=0)
    yield client, {"nobody": None, **tokens}, deployment
    deployment.store.close()


def test_every_route_says_who_may_call_it(everybody):
    paths = everybody[0].app.openapi()["paths"]
    served = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert served | {"GET /openapi.json"} == set(RIGHTS)


def test_the_openapi_document_says_where_a_token_is_asked_for(everybody):
    paths = everybody[0].app.openapi()["paths"]
    asked = {
        f"{method.upper()} {path}": bool(operation.get("security"))
        for path, methods in paths.items()
        for method, operation in methods.items()
    }
    needed = {route: role is not None for route, role in RIGHTS.items()}
    assert asked | {"GET /openapi.json": False} == needed


@pytest.mark.parametrize("who", ["nobody", *AccessRole])
@pytest.mark.parametrize("route", RIGHTS)
def test_every_role_at_every_route(everybody, route, who):
    client, tokens, _ = everybody
    needed = RIGHTS[route]
    status = call(as_role(client, tokens[who]), route).status_code
    if needed is None or (who != "nobody" and AccessRole(who).may(needed)):
        assert status not in {401, 403, 405, 429}
        assert status < 500
    else:
        assert status == (401 if who == "nobody" else 403)


def test_a_route_that_does_not_stand_in_the_table_is_served_to_nobody(deployment):
    app = create_app(service_of(deployment))

    @app.get("/v1/secret")
    def secret() -> str:
        return "never"

    client = Client(app, token_for(deployment, "root", "admin"))
    assert client.get("/v1/secret").status_code == 404


def test_what_is_not_there_is_told_to_those_who_have_a_token_only(everybody):
    client, tokens, _ = everybody
    assert as_role(client, None).get("/v1/none").status_code == 401
    assert as_role(client, tokens["viewer"]).get("/v1/none").status_code == 404
    other = client.request("DELETE", "/v1/plans")
    assert (other.status_code, other.headers["allow"]) == (405, "GET, POST")
    assert OF_API.right_to("HEAD", "/v1/plans").needed is AccessRole.VIEWER


def test_who_am_i(deployment):
    ends = NOON + timedelta(days=1)
    client = client_of(deployment, token_for(deployment, "ann", "approver", expires_at=ends))
    told = client.get("/v1/whoami").json()
    assert told == {
        "name": "ann",
        "role": "approver",
        "expires_at": ends.isoformat().replace("+00:00", "Z"),
        "by_token": True,
    }


def test_a_token_that_has_ended_is_told_so(deployment):
    soon = NOON + timedelta(hours=1)
    expired = token_for(deployment, "ann", "viewer", expires_at=soon)
    revoked = token_for(deployment, "bob", "viewer")
    deployment.store.tokens().revoke(name="bob", at=NOON, by="test")
    client = client_of(replace(deployment, clock=lambda: soon), expired)
    answers = [client.get("/v1/whoami"), as_role(client, revoked).get("/v1/whoami")]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert "this token of ann expired at" in answers[0].json()["detail"]
    assert "this token of bob was revoked at" in answers[1].json()["detail"]
    text = client.get("/metrics").text
    assert 'poolwise_http_refusals_total{reason="expired_token"} 1.0' in text
    assert 'poolwise_http_refusals_total{reason="revoked_token"} 1.0' in text


def test_both_tokens_of_a_rotation_are_the_same_person(deployment):
    old, new = token_for(deployment, "ann", "approver"), new_token()
    deployment.store.tokens().rotate(
        hash_of(new), name="ann", at=NOON, by="test", overlap=timedelta(days=1)
    )
    client = client_of(deployment, old)
    names = [as_role(client, token).get("/v1/whoami").json()["name"] for token in (old, new)]
    assert names == ["ann", "ann"]


BUSY = {"requests": 3000, "isl": 1200, "osl": 80}


def rotated(deployment, name):
    token = new_token()
    deployment.store.tokens().rotate(
        hash_of(token), name=name, at=NOON, by="test", overlap=timedelta(days=1)
    )
    return token


def test_who_asked_must_not_approve_by_another_token_of_theirs(tmp_path):
    deployment = make_deployment(tmp_path, approval={"requester_may_approve": False})
    client = client_of(deployment, token_for(deployment, "ann", "approver"))
    plan = client.post("/v1/plans", {"history": history(**BUSY)}).json()["plan_id"]
    as_role(client, rotated(deployment, "ann"))
    refused = client.post(f"/v1/plans/{plan}/approve")
    assert refused.status_code == 409
    assert "asked for by ann, who must not approve it" in refused.json()["detail"]
    as_role(client, token_for(deployment, "bea", "approver"))
    assert client.post(f"/v1/plans/{plan}/approve").json()["approval"]["state"] == "approved"
    deployment.store.close()


def test_two_persons_are_not_two_tokens_of_one(tmp_path):
    deployment = make_deployment(tmp_path, approval={"two_persons_from_replicas": 1})
    client = client_of(deployment, token_for(deployment, "ann", "approver"))
    plan = client.post("/v1/plans", {"history": history(**BUSY)}).json()["plan_id"]
    path = f"/v1/plans/{plan}/approve"
    assert client.post(path).json()["approval"]["state"] == "pending"
    as_role(client, rotated(deployment, "ann"))
    assert client.post(path).json()["approval"]["state"] == "pending"
    as_role(client, token_for(deployment, "bea", "approver"))
    assert client.post(path).json()["approval"]["state"] == "approved"
    deployment.store.close()


def test_a_refusal_by_role_is_in_the_audit_log_once_a_minute(deployment):
    client = client_of(deployment, token_for(deployment, "eve", "viewer"))
    for _ in range(3):
        assert client.post("/v1/plans/x/approve").status_code == 403
    lines = [line for line in deployment.store.audit(limit=9) if line.action == "access.refuse"]
    told = [(line.actor, line.subject, line.detail) for line in lines]
    assert told == [("eve", "POST /v1/plans/{plan_id}/approve", "needs approver, has viewer")]
    text = client.get("/metrics").text
    assert 'poolwise_http_refusals_total{reason="role"} 3.0' in text


def test_anonymous_reads_read_and_ask_nothing_that_costs(deployment):
    client = client_of(deployment, anonymous_reads=True)
    assert client.get("/v1/plans").status_code == 200
    assert client.get("/v1/whoami").json()["by_token"] is False
    assert client.post("/v1/forecasts", {"history": history()}).status_code == 401
    assert client.get("/v1/audit").status_code == 401
    assert as_role(client, "pw_wrong").get("/v1/plans").status_code == 401


def test_bad_tokens_are_limited_and_good_ones_go_on(deployment):
    good = token_for(deployment, "ann", "viewer")
    client = client_of(deployment, good)
    assert client.get("/v1/whoami").status_code == 200
    as_role(client, "pw_guess")
    statuses = [client.get("/v1/whoami").status_code for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    refused = client.get("/v1/whoami")
    assert refused.headers["content-type"] == "application/problem+json"
    assert 1 <= int(refused.headers["retry-after"]) <= 6
    assert as_role(client, good).get("/v1/whoami").status_code == 200
    new = token_for(deployment, "bea", "viewer")
    assert as_role(client, new).get("/v1/whoami").status_code == 429  # not seen good before


@pytest.mark.parametrize(
    ("one", "other", "counted_as"),
    [
        ("10.0.0.7", "10.0.0.8", "two"),
        ("::ffff:10.0.0.7", "::ffff:10.0.0.8", "two"),  # IPv4, at a socket for both
        ("2001:db8::7", "2001:db8::8", "one"),
    ],
)
def test_bad_tokens_count_for_the_machine_that_sends_them(deployment, one, other, counted_as):
    client = client_of(deployment, "pw_guess")
    client.address = one
    assert [client.get("/v1/whoami").status_code for _ in range(11)] == [401] * 10 + [429]
    client.address = other
    as_role(client, token_for(deployment, "ann", "viewer"))
    assert client.get("/v1/whoami").status_code == (200 if counted_as == "two" else 429)


def test_each_name_has_its_rate(deployment):
    ann, bea = token_for(deployment, "ann", "viewer"), token_for(deployment, "bea", "viewer")
    client = client_of(deployment, ann, requests_per_s=0.01)
    # Twice the rate would be less than one request, of which there is always one.
    assert client.get("/v1/whoami").status_code == 200
    refused = client.get("/v1/whoami")
    assert (refused.status_code, refused.json()["status"]) == (429, 429)
    assert 90 <= int(refused.headers["retry-after"]) <= 100
    assert as_role(client, rotated(deployment, "ann")).get("/v1/whoami").status_code == 429
    assert as_role(client, bea).get("/v1/whoami").status_code == 200
    assert client.get("/healthz").status_code == 200


def test_an_answer_is_neither_framed_nor_sniffed_nor_kept(deployment):
    client = client_of(deployment, token_for(deployment, "ann", "viewer"))
    deployment.actuator.fleet = None
    for path, status in (
        ("/v1/whoami", 200),
        ("/v1/none", 404),
        ("/metrics", 200),
        ("/v1/deployments/shop/fleet", 500),
    ):
        answer = client.get(path)
        assert answer.status_code == status
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "strict-transport-security" not in headers
    assert (
        'poolwise_http_requests_total{method="GET",status="500"} 1.0' in client.get("/metrics").text
    )


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:9"])
def test_a_page_elsewhere_writes_nothing_to_a_local_server(deployment, origin):
    client = client_of(deployment, insecure_local=True)
    path = "/v1/deployments/shop/fleet"
    headers = {"Origin": origin}
    refused = client.request("PUT", path, json=fleet(), headers=headers)
    assert refused.status_code == 403
    assert "takes no writes from a page of" in refused.json()["detail"]
    own = {"Origin": "http://localhost"}
    assert client.request("PUT", path, json=fleet(), headers=own).status_code == 200


def test_a_name_that_resolves_to_this_machine_reads_nothing_from_a_local_server(deployment):
    client = client_of(deployment, insecure_local=True)
    for host in ("evil.example", "localhost.evil.example", "[::1"):
        client.headers = {"Host": host}
        assert client.get("/v1/plans").status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/x"])
def test_a_form_writes_nothing(deployment, kind):
    client = client_of(deployment, insecure_local=True)
    headers = {"Content-Type": kind}
    refused = client.request("POST", "/v1/plans/x/approve", content=b"{}", headers=headers)
    assert refused.status_code == 415
    assert refused.headers["content-type"] == "application/problem+json"


def test_a_cookie_is_no_token(deployment):
    token = token_for(deployment, "ann", "admin")
    client = client_of(deployment)
    for name in ("Authorization", "token", "access_token"):
        client.headers = {"Cookie": f"{name}={token}"}
        assert client.get("/v1/whoami").status_code == 401


def test_nobody_is_asked_for_a_body_before_the_token(deployment):
    client = client_of(deployment, max_body_bytes=10)
    answer = client.request("POST", "/v1/plans", content=b"{" * 100, headers=JSON)
    assert answer.status_code == 401


def test_many_requests_at_once_with_a_token_ask_the_database_once(deployment):
    client = client_of(deployment, token_for(deployment, "ann", "viewer"))
    asked = []
    event.listen(
        deployment.store._engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, *_: asked.append("FROM tokens" in statement),
    )

    async def ask():
        transport = httpx.ASGITransport(app=client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            http.headers = client.headers
            return await asyncio.gather(*(http.get("/v1/whoami") for _ in range(50)))

    answers = asyncio.run(ask())
    assert {answer.status_code for answer in answers} == {200}
    assert sum(asked) == 1


def test_the_last_use_of_a_token_is_noted_now_and_then(deployment):
    client = client_of(deployment, token_for(deployment, "ann", "viewer"))
    client.get("/v1/whoami")
    assert deployment.store.tokens().all()[0].last_used_at is None
    client.app.state.authenticator.note_uses()
    assert deployment.store.tokens().all()[0].last_used_at == NOON


def test_an_admin_makes_rotates_and_revokes_tokens(deployment):
    root = token_for(deployment, "root", "admin")
    client = client_of(deployment, root)
    body = {"name": "ann", "role": "operator", "expires_s": 3600}
    made = client.post("/v1/tokens", body)
    assert made.status_code == 201
    first = made.json()["token"]
    assert as_role(client, first).get("/v1/whoami").json()["role"] == "operator"
    as_role(client, root)
    assert client.post("/v1/tokens", body).status_code == 422
    second = client.post("/v1/tokens/ann/rotate").json()["token"]
    listed = client.get("/v1/tokens").json()["tokens"]
    assert [(one["name"], one["state"]) for one in listed] == [
        ("ann", "live"),
        ("ann", "live"),
        ("root", "live"),
    ]
    assert first not in str(listed)
    assert client.post("/v1/tokens/ann/revoke").json() == {"tokens": 2}
    assert client.post("/v1/tokens/ann/revoke").status_code == 404
    assert client.post("/v1/tokens/root/revoke").status_code == 422
    client.app = create_app(service_of(deployment))  # another process, which has none cached
    statuses = [as_role(client, one).get("/v1/whoami").status_code for one in (first, second)]
    assert statuses == [401, 401]


def test_a_local_server_gives_out_no_tokens(deployment):
    client = client_of(deployment, insecure_local=True)
    refused = client.post("/v1/tokens", {"name": "ann", "role": "admin"})
    assert refused.status_code == 403
    assert deployment.store.tokens().all() == ()


def test_the_audit_log_is_read_page_by_page(deployment):
    client = client_of(deployment, token_for(deployment, "root", "admin"))
    for index in range(4):
        deployment.store.add_audit(NOON, "ann", "test", str(index), "")
    page = client.get("/v1/audit?limit=3").json()
    assert [line["seq"] for line in page["lines"]] == [5, 4, 3]
    rest = client.get(f"/v1/audit?limit=3&before={page['before']}").json()
    assert [line["seq"] for line in rest["lines"]] == [2, 1]
    assert rest["before"] is None
    assert rest["lines"][0]["prev_hash"] == rest["lines"][1]["hash"]
