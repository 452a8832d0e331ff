"""`poolwise token` and `poolwise audit` on this machine's database."""

import json
import re
import sqlite3
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.planner.service.served import served

TOKEN = re.compile(r"pw_[\w-]{43}")


def as_json(poolwise, *arguments):
    status, out, err = poolwise(*arguments, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def test_a_token_is_made_printed_once_and_works(folder, poolwise):
    status, out, _ = poolwise("token", "create", "ann", "--role", "approver", "--expires", "30d")
    assert status == 0
    assert out.startswith("Bearer token of ann (approver, until ")
    (token,) = TOKEN.findall(out)
    poolwise("token", "create", "root", "--role", "admin")
    with served(folder) as (_, facts):
        assert facts["token"] is None  # there are tokens already
        headers = {"Authorization": f"Bearer {token}"}
        told = httpx.get(f"{facts['url']}/v1/whoami", headers=headers).json()
        assert (told["name"], told["role"]) == ("ann", "approver")
        ends = datetime.fromisoformat(told["expires_at"])
        assert timedelta(days=29) < ends - datetime.now(UTC) <= timedelta(days=30)
    (ann, _) = as_json(poolwise, "token", "list")["tokens"]
    assert ann["last_used_at"] is not None
    status, out, _ = poolwise("token", "list")
    assert "ann" in out
    assert not TOKEN.findall(out)


def test_rotation_and_revocation(poolwise):
    made = as_json(poolwise, "token", "create", "ann", "--role", "viewer")
    again = as_json(poolwise, "token", "rotate", "ann", "--overlap", "2h")
    assert (again["role"], again["expires_at"]) == ("viewer", None)
    old, new = as_json(poolwise, "token", "list")["tokens"]
    assert (old["token_id"], new["token_id"]) == (made["token_id"], again["token_id"])
    assert old["expires_at"] is not None
    assert as_json(poolwise, "token", "revoke", "ann") == {"tokens": 2}
    assert as_json(poolwise, "token", "list")["tokens"] == []
    states = [one["state"] for one in as_json(poolwise, "token", "list", "--all")["tokens"]]
    assert states == ["revoked", "revoked"]
    assert "no token is live" in poolwise("token", "list")[1]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["create", "ann", "--role", "viewer", "--expires", "soon"], "'soon' is no duration"),
        (["create", "ann", "--role", "viewer", "--expires", "99999d"], "is no duration"),
        (["create", "ann", "--role", "viewer", "--expires", "0s"], "must end after now"),
        (["create", "Ann", "--role", "viewer"], "'Ann' is no name for a token"),
        (["create", "policy", "--role", "viewer"], "Poolwise itself acts"),
        (["rotate", "bob"], "bob has no token that is live"),
        (["revoke", "bob"], "bob has no token that is live"),
    ],
)
def test_what_cannot_be_is_one_sentence(poolwise, arguments, what):
    status, out, err = poolwise("token", *arguments)
    assert (status, out) == (2, "")
    assert what in err
    assert len(err.splitlines()) == 1


def test_the_audit_log_is_shown_and_verified(poolwise):
    as_json(poolwise, "token", "create", "ann", "--role", "viewer")
    head = as_json(poolwise, "audit", "verify")["head"]
    as_json(poolwise, "token", "revoke", "ann")
    check = as_json(poolwise, "audit", "verify", "--expect", head)
    assert (check["rows"], check["broken"]) == (2, "")
    assert poolwise("audit", "verify")[1] == f"2 lines in order; head {check['head']}\n"
    page = as_json(poolwise, "audit", "show", "--limit", "1")
    assert [line["action"] for line in page["lines"]] == ["token.revoke"]
    assert page["lines"][0]["actor"].startswith("cli:")
    page = as_json(poolwise, "audit", "show", "--before", str(page["before"]))
    assert [line["action"] for line in page["lines"]] == ["token.create"]
    status, out, _ = poolwise("audit", "show")
    assert status == 0
    assert out.index("token.create") < out.index("token.revoke")


def test_a_broken_log_is_exit_status_1_and_names_the_line(folder, poolwise):
    for name in ("ann", "bea"):
        as_json(poolwise, "token", "create", name, "--role", "viewer")
    connection = sqlite3.connect(folder / "state" / "poolwise.db")
    connection.execute("DROP TRIGGER audit_no_update")
    connection.execute("UPDATE audit SET actor = 'nobody' WHERE seq = 2")
    connection.commit()
    connection.close()
    status, out, err = poolwise("audit", "verify")
    assert (status, out) == (1, "")
    assert "line 2 was changed" in err
    status, out, _ = poolwise("audit", "verify", "--json")
    assert status == 1
    assert json.loads(out)["broken_seq"] == 2


def test_a_head_that_is_not_there_any_more_is_missed(poolwise):
    as_json(poolwise, "token", "create", "ann", "--role", "viewer")
    status, _, err = poolwise("audit", "verify", "--expect", "f" * 64)
    assert status == 1
    assert "no line has the expected hash ffff" in err
