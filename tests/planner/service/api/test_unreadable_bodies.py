"""A body that cannot be read, or is of another kind: what is wrong, where, what to do."""

import pytest

from tests.planner.service.clients import client_of
from tests.planner.service.imagined import make_deployment


@pytest.fixture
def client(tmp_path):
    made = make_deployment(tmp_path)
    yield client_of(made)
    made.store.close()


def sent(client, body):
    headers = {"Content-Type": "application/json"}
    return client.post("/v1/forecasts", content=body, headers=headers)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"a": "\xff"}', "not text in UTF-8: invalid start byte (byte 7); send JSON in UTF-8"),
        (b'{"a": ' + b"7" * 5_000 + b"}", "a number has 5,000 digits (byte 6), more than"),
        (b'"a[[": ' + b"[" * 100_000, "the body is not JSON: Extra data (character 5)"),
        (b'["[[", ' + b"[" * 100_000, "more than 500 deep (byte 506)"),
    ],
)
def test_a_body_that_cannot_be_read_says_why_where_and_what_to_do(client, body, why):
    answer = sent(client, body)
    problem = answer.json()
    assert answer.status_code in (400, 422)
    assert why in problem["detail"]
    assert problem["errors"][0]["field"].startswith("body")


@pytest.mark.parametrize(
    ("body", "got"), [(b"[1, null]", "[1, null]"), (b'"x"', '"x"'), (b"true", "true"), (b"7", "7")]
)
def test_a_body_that_is_no_object_is_told_so_in_words_of_json(client, body, got):
    answer = sent(client, body)
    (error,) = answer.json()["errors"]
    assert answer.status_code == 422
    assert answer.json()["detail"] == "1 field of the request is not valid; see errors"
    assert error["problem"].startswith("the body should be an object ({...}): see the route's")
    assert (error["pointer"], error["got"]) == ("#", got)


@pytest.mark.parametrize(
    ("body", "problem", "got"),
    [
        (b'{"history": {"a": null}}', "Input should be an array ([...])", '{"a": null}'),
        (b'{"history": [null]}', "Input should be an object ({...})", "null"),
        (b'{"deployment": null, "history": [false]}', "Input should be an object ({...})", "false"),
    ],
)
def test_what_stands_in_a_field_is_told_in_words_of_json(client, body, problem, got):
    (error,) = sent(client, body).json()["errors"]
    assert (error["problem"], error["got"]) == (problem, got)
