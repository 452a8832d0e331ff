"""Looking at all targets at once: nobody waits for one that hangs."""

import subprocess
import sys
import time

import pytest

from planner.domain.errors import EngineError
from planner.domain.fleet import Role
from serving.fleet.endpoints import Endpoints, RouterEndpoint, WorkerEndpoint
from serving.telemetry.machine import ELSEWHERE, look_at_machine, with_hardware
from serving.telemetry.reader import StraightReader
from serving.telemetry.signals import Source, TargetKind, TargetState
from serving.telemetry.targets import Look, Target, metrics_page, signals_of, targets_of
from tests.serving.telemetry.look import written
from tests.serving.telemetry.servers import Served, serving, until

RUNNING = "vllm:num_requests_running 1\nvllm:generation_tokens_total 10\n"


def target(url: str, name: str = "w") -> Target:
    return Target(
        name=name,
        url=url,
        metrics_url=metrics_page(url),
        kind=TargetKind.ENGINE,
        role=Role.DECODE,
    )


def no_wait(_seconds: float) -> None:
    pass


def test_a_target_that_hangs_is_down_after_its_deadline_and_the_others_are_read() -> None:
    hanging = Served(RUNNING, delay_s=8.0)
    with serving(Served(RUNNING)) as good, serving(hanging) as bad:
        began_s = time.monotonic()
        reader = StraightReader([target(bad.url, "bad"), target(good.url)], 0.5, sleep=no_wait)
        first, second = reader.read(1.0).targets
        assert time.monotonic() - began_s < hanging.delay_s
    assert (first.state, first.note) == (TargetState.DOWN, "no answer within 0.5 s")
    assert second.state is TargetState.UP


@pytest.mark.parametrize(
    ("served", "note"),
    [
        (Served("gone", status=503), "it answers with HTTP 503"),
        (Served(None), "it does not answer"),
        (Served("<html>"), "not with metrics in Prometheus' text format"),
        (Served("up 1\n"), "not those of a known engine"),
    ],
)
def test_why_a_target_is_down_is_told(served: Served, note: str) -> None:
    with serving(served) as bad, serving(Served(RUNNING)) as good:
        reader = StraightReader([target(bad.url), target(good.url)], 5.0, sleep=no_wait)
        assert note in reader.read(1.0).targets[0].note


def test_when_nothing_answers_that_is_an_error_with_every_reason() -> None:
    reader = StraightReader([target("http://127.0.0.1:9", "a")], 1.0, sleep=no_wait)
    with pytest.raises(EngineError, match=r"nothing answers:\n  a .*it does not answer"):
        reader.read(1.0)


def test_each_reading_goes_on_from_the_one_before() -> None:
    with serving(Served(RUNNING)) as served:
        reader = StraightReader([target(served.url)], 5.0, sleep=lambda _s: time.sleep(0.05))
        (first,) = reader.read(0.05).targets
        served.text = RUNNING.replace(" 10", " 30")
        (second,) = reader.read(0.05).targets
    assert first.activity.output_tokens_per_s.value == 0.0
    assert second.interval_s is not None
    rate = second.activity.output_tokens_per_s.value
    assert rate == pytest.approx(20 / second.interval_s)


def test_engines_are_looked_at_between_the_ends_and_one_that_hangs_costs_no_more_time() -> None:
    hanging = Served(RUNNING, delay_s=10.0)
    with serving(Served(RUNNING)) as good, serving(hanging) as bad:
        began_s = time.monotonic()
        reading = StraightReader([target(bad.url, "bad"), target(good.url)], 0.5).read(1.5)
        assert time.monotonic() - began_s < hanging.delay_s
    unread, read = reading.looks
    assert [x.page is None for x in unread] == [True] * len(unread)
    assert len(read) >= 4
    assert all(x.page is not None for x in read)


def test_the_endpoints_file_names_every_part() -> None:
    found = targets_of(
        Endpoints(
            pid=1,
            model="m",
            gate="http://h:1",
            routers=(RouterEndpoint(cell="c", url="http://h:2", metrics_url="http://h:3/metrics"),),
            workers=(WorkerEndpoint(name="w", role=Role.PREFILL, cell="c", url="http://h:4"),),
        )
    )
    assert [t.metrics_url for t in found] == [
        "http://h:1/metrics",
        "http://h:3/metrics",
        "http://h:4/metrics",
    ]
    assert [t.kind for t in found] == [TargetKind.GATE, TargetKind.ROUTER, TargetKind.ENGINE]
    assert found[2].role is Role.PREFILL


BUSY = """
import socket, sys, time
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
while True:
    pass
"""


def test_processor_time_of_a_local_worker_is_that_of_who_listens_there() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True) as busy:
        try:
            assert busy.stdout is not None
            url = f"http://127.0.0.1:{busy.stdout.readline().strip()}"
            before = look_at_machine([url])
            used = before.processes(url)
            assert used is not None
            until(
                lambda: (
                    (now := look_at_machine([url]).processes(url)) is not None
                    and now.cpu_s > used.cpu_s + 0.1
                ),
                "no processor time was used",
            )
            after = look_at_machine([url])
            where = target(url)
            page = written(RUNNING)
            (found,) = with_hardware(
                [signals_of(None, Look(target=where, page=page))], before, after
            )
        finally:
            busy.kill()
    cores = found.activity.hardware.cpu_cores.value
    assert cores is not None
    assert 0 < cores <= 1.1
    assert (found.activity.hardware.resident_bytes.value or 0) > 1e6
    assert found.activity.hardware.accelerator_ratio.missing.startswith("not available")


def test_hardware_of_another_machine_is_not_told_and_never_zero() -> None:
    machine = look_at_machine([])
    remote = signals_of(None, Look(target=target("http://10.0.0.7:1"), page=written(RUNNING)))
    (found,) = with_hardware([remote], machine, machine)
    assert found.activity.hardware.cpu_cores.missing == ELSEWHERE
    assert found.source is Source.VLLM
