"""Which calls are tried again."""

import pytest
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException

from actuators.kubernetes.client import MAX_TRIES, Asked, ClusterError, ask
from tests.kubernetes import FakeCluster

WRITE = Asked(doing="scale decode", writes=True)


def _answers(*answers: object) -> object:
    answer = answers[0]
    if isinstance(answer, Exception):
        raise answer
    return answer


def _busy() -> ApiException:
    error = ApiException(status=429, reason="Too Many Requests")
    error.headers = {"Retry-After": "7"}
    return error


def test_a_busy_server_is_asked_again_when_it_says() -> None:
    queue: list[object] = [_busy(), "done"]
    slept: list[float] = []
    assert ask(lambda: _answers(queue.pop(0)), WRITE, sleep=slept.append) == "done"
    assert slept == [7.0]


def test_a_server_that_stays_busy_is_given_up() -> None:
    slept: list[float] = []
    with pytest.raises(ClusterError, match="429"):
        ask(lambda: _answers(_busy()), WRITE, sleep=slept.append)
    assert len(slept) == MAX_TRIES - 1


def test_a_broken_read_is_tried_again() -> None:
    queue: list[object] = [ConnectionResetError(), "done"]
    read = Asked(doing="read decode", writes=False)
    assert ask(lambda: _answers(queue.pop(0)), read, sleep=lambda _s: None) == "done"


def test_a_server_without_tls_or_with_a_certificate_of_nobody_is_not_reached() -> None:
    """The client tells TLS that failed as an answer of status 0, over two lines."""
    with FakeCluster() as cluster:
        settings = Configuration(host=cluster.url.replace("http:", "https:"))
        settings.retries = False
        api = ApiClient(settings)
        slept: list[float] = []
        read = Asked(doing="read decode", writes=False)
        with pytest.raises(ClusterError, match=r"cannot be reached \(SSLError .*; check") as told:
            ask(lambda: api.call_api("GET", f"{settings.host}/version"), read, sleep=slept.append)
        assert told.value.status is None
        assert "\n" not in str(told.value)
        assert len(slept) == MAX_TRIES - 1
