"""Tokens in the store: hashed, named, with a role, an end, and a successor."""

from datetime import timedelta

import pytest

from planner.domain.errors import TokenError, UnknownTokenError
from planner.service.security.access import RESERVED, AccessRole
from planner.service.security.tokens import hash_of, new_token
from planner.service.store import open_store
from tests.planner.service.examples import NOON
from tests.planner.service.store.test_audit import tamper
from tests.planner.service.store.test_store import at_revision

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def store(database_url):
    opened = open_store(database_url)
    yield opened
    opened.close()


@pytest.fixture
def tokens(store):
    return store.tokens()


def create(tokens, name, role="operator", *, at=NOON, **more):
    token = new_token()
    tokens.create(hash_of(token), name=name, role=AccessRole(role), at=at, by="boss", **more)
    return hash_of(token)


def rotate(tokens, name, *, at=NOON, overlap=DAY, **more):
    token = new_token()
    tokens.rotate(hash_of(token), name=name, at=at, by="boss", overlap=overlap, **more)
    return hash_of(token)


def test_only_a_tokens_hash_is_stored(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'poolwise.db'}")
    token = new_token()
    assert store.tokens().add_first(hash_of(token), name="admin", at=NOON)
    store.close()
    files = list(tmp_path.glob("poolwise.db*"))
    assert files
    assert not any(token.encode() in path.read_bytes() for path in files)


def test_a_new_token_for_all_ends_every_old_one(tokens):
    first, second = hash_of(new_token()), hash_of(new_token())
    assert tokens.add_first(first, name="admin", at=NOON)
    ann = create(tokens, "ann")
    tokens.replace_all(second, name="admin", at=NOON)
    states = [tokens.find(one).state(NOON) for one in (first, ann, second)]
    assert states == ["revoked", "revoked", "live"]


def test_of_two_processes_that_start_on_a_new_database_one_makes_the_token(tokens):
    first, second = hash_of(new_token()), hash_of(new_token())
    assert tokens.add_first(first, name="admin", at=NOON)
    assert not tokens.add_first(second, name="admin", at=NOON)
    assert tokens.find(first).role is AccessRole.ADMIN
    assert tokens.find(second) is None


def test_a_token_of_an_earlier_version_may_do_everything_for_ever(database_url):
    at_revision(database_url, "0006")
    tamper(
        database_url,
        f"INSERT INTO tokens VALUES ('{'a' * 64}', 'admin', '{NOON.isoformat()}')",
        past_triggers=False,
    )
    store = open_store(database_url)
    found = store.tokens().find("a" * 64)
    store.close()
    assert (found.role, found.expires_at, found.state(NOON)) == (AccessRole.ADMIN, None, "live")


def test_a_name_has_one_token(tokens):
    create(tokens, "ann")
    with pytest.raises(TokenError, match="ann has a token already"):
        create(tokens, "ann", "viewer")
    tokens.revoke(name="ann", at=NOON, by="boss")
    again = create(tokens, "ann", "viewer")
    assert tokens.find(again).role is AccessRole.VIEWER


def test_a_name_whose_token_has_expired_may_have_another_one(tokens):
    create(tokens, "ann", expires_at=NOON + HOUR)
    create(tokens, "ann", at=NOON + HOUR)
    assert [one.state(NOON + HOUR) for one in tokens.all()] == ["expired", "live"]


NO_NAMES = ["", "Ann", "ann ", "\u0430nn", "a" * 64, "-ann", "cli:root", "a\n"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_could_be_taken_for_another_is_refused(tokens, name):
    with pytest.raises(TokenError, match="no name for a token"):
        create(tokens, name)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_name_under_which_poolwise_acts_is_refused(tokens, name):
    with pytest.raises(TokenError, match="Poolwise itself acts"):
        create(tokens, name)


def test_a_token_ends_at_its_instant(tokens):
    with pytest.raises(TokenError, match="must end after now"):
        create(tokens, "ann", expires_at=NOON)
    found = tokens.find(create(tokens, "ann", expires_at=NOON + HOUR))
    assert found.state(NOON + HOUR - timedelta(seconds=1)) == "live"
    assert found.state(NOON + HOUR) == "expired"


def test_a_rotated_token_goes_on_for_the_overlap_and_the_new_one_has_its_role(tokens):
    old = create(tokens, "ann", "approver", expires_at=NOON + 30 * DAY)
    new = rotate(tokens, "ann", at=NOON + 10 * DAY)
    assert tokens.find(old).expires_at == NOON + 11 * DAY
    assert tokens.find(new).role is AccessRole.APPROVER
    assert tokens.find(new).expires_at == NOON + 40 * DAY  # again 30 days
    assert tokens.find(new).name == tokens.find(old).name


def test_the_overlap_never_makes_a_token_last_longer(tokens):
    old = create(tokens, "ann", expires_at=NOON + HOUR)
    rotate(tokens, "ann")
    assert tokens.find(old).expires_at == NOON + HOUR


def test_without_an_overlap_the_old_token_ends_at_once(tokens):
    old = create(tokens, "ann", "admin")
    new = rotate(tokens, "ann", overlap=timedelta(0))
    assert [tokens.find(one).state(NOON) for one in (old, new)] == ["revoked", "live"]


def test_an_unknown_name_has_nothing_to_rotate_or_to_revoke(tokens):
    with pytest.raises(UnknownTokenError, match="bob has no token"):
        rotate(tokens, "bob")
    with pytest.raises(UnknownTokenError, match="bob has no token"):
        tokens.revoke(name="bob", at=NOON, by="boss")


def test_revoking_ends_all_tokens_of_a_name(tokens):
    create(tokens, "root", "admin")
    both = [create(tokens, "ann"), rotate(tokens, "ann")]
    assert tokens.revoke(name="ann", at=NOON, by="boss") == 2
    assert [tokens.find(one).state(NOON) for one in both] == ["revoked", "revoked"]


def test_the_last_admin_cannot_be_revoked(tokens):
    create(tokens, "root", "admin")
    create(tokens, "ann")
    with pytest.raises(TokenError, match="root is the only admin left"):
        tokens.revoke(name="root", at=NOON, by="root")
    create(tokens, "boss", "admin")
    assert tokens.revoke(name="root", at=NOON, by="boss") == 1


def test_what_is_done_to_tokens_is_in_the_audit_log_and_they_are_not(store, tokens):
    create(tokens, "root", "admin")
    old, new = create(tokens, "ann"), rotate(tokens, "ann")
    tokens.revoke(name="ann", at=NOON, by="boss")
    lines = store.audit(limit=9)
    told = [(line.actor, line.action, line.subject) for line in lines]
    assert told == [
        ("boss", "token.revoke", "ann"),
        ("boss", "token.rotate", "ann"),
        ("boss", "token.create", "ann"),
        ("boss", "token.create", "root"),
    ]
    assert "operator" in lines[2].detail
    assert not any(one in line.detail for line in lines for one in (old, new))


def test_the_last_use_is_kept_without_a_line_in_the_audit_log(store, tokens):
    ann, bob = create(tokens, "ann"), create(tokens, "bob")
    tokens.note_uses({ann: NOON + HOUR})
    assert tokens.find(ann).last_used_at == NOON + HOUR
    assert tokens.find(bob).last_used_at is None
    assert len(store.audit(limit=9)) == 2


@pytest.mark.parametrize(
    ("role", "needed", "allowed"),
    [
        ("viewer", "viewer", True),
        ("viewer", "operator", False),
        ("operator", "approver", False),
        ("approver", "operator", True),
        ("approver", "admin", False),
        ("admin", "viewer", True),
    ],
)
def test_each_role_may_what_those_before_it_may(role, needed, allowed):
    assert AccessRole(role).may(AccessRole(needed)) is allowed
