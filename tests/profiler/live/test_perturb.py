"""Load of one kind at a time, against a server over real sockets."""

import asyncio
from collections.abc import Iterator

import pytest

from planner.domain.errors import MeasurementError
from planner.domain.profile import Profile
from profiler.live.perturb import Perturbation, PerturbPlan, Response, bottleneck_of
from profiler.measure.requests import Sender, TooLongError
from serving.traffic.load import LoadClient
from serving.traffic.prompts import PromptWriter
from tests.fakes.profiles import linear_profile
from tests.profiler.measure.imitation import MODEL, Imitation, imitated_server

WORDS = tuple(f"w{i}" for i in range(200))


@pytest.fixture
def server() -> Iterator[Imitation]:
    """One prompt at a time, a millisecond a token: prefill is what it is short of."""
    with imitated_server(Imitation(prompt_s=1e-3)) as running:
        yield running


def perturbed(server: Imitation, profile: Profile, plan: PerturbPlan) -> list[Response]:
    async def run() -> list[Response]:
        client = LoadClient(url=server.url, model=MODEL)
        try:
            return await Perturbation(
                sender=Sender(client=client, patience_s=0.0, resumable=False),
                writer=PromptWriter(words=WORDS, seed=1),
                profile=profile,
                plan=plan,
            ).run()
        finally:
            await client.close()

    return asyncio.run(run())


def response(kind: str, ttft: float, low: float) -> Response:
    return Response(
        kind=kind,
        ttft_ratio=ttft,
        ttft_interval=(low, 2 * ttft),
        itl_ratio=0.0,
        itl_interval=(-0.1, 0.1),
        readings=20,
    )


def test_prompts_slow_down_a_server_that_is_short_of_prefill(server: Imitation) -> None:
    # By its profile a prompt takes an eighth of what it really does, so that the share asked
    # for keeps the real one busy for most of the time.
    plan = PerturbPlan(
        extra_ratio=0.11, phase_s=4.0, phases=1, most_ttft_s=30.0, settle_s=0.5, every_s=0.1
    )
    responses = perturbed(server, linear_profile(first_token_s=0.02), plan)
    assert [r.kind for r in responses] == ["prefill", "decode", "requests"]
    prefill, *others = responses  # beside each other: a busy machine slows all of them
    assert prefill.ttft_ratio > 2 * max(abs(other.ttft_ratio) for other in others)
    assert bottleneck_of(responses) == "prefill"
    assert server.running == 0  # nothing is left behind


def test_deployment_that_waits_too_long_is_left_alone(server: Imitation) -> None:
    server.slowness = 20.0
    plan = PerturbPlan(phase_s=1.0, phases=1, most_ttft_s=0.2)
    with pytest.raises(MeasurementError, match=r"stopped: a short request waited .* all added"):
        perturbed(server, linear_profile(first_token_s=0.02), plan)


def test_added_load_ends_before_a_short_request_that_waits_is_answered(server: Imitation) -> None:
    """A deployment that hangs is not kept loaded until it answers."""
    server.slowness = 1000.0  # a minute for the first token
    plan = PerturbPlan(phase_s=1.0, phases=1, most_ttft_s=0.2)
    with pytest.raises(MeasurementError, match="stopped"):
        perturbed(server, linear_profile(first_token_s=0.02), plan)
    assert server.generated == 0


def test_load_that_fails_ends_the_phase_with_its_own_error(server: Imitation) -> None:
    server.longest = 100  # short requests fit, the prompts that are added do not
    # The phase without added load is waited for, and that with it would last as long.
    plan = PerturbPlan(extra_ratio=0.5, phase_s=5.0, phases=1, most_ttft_s=30.0)
    with pytest.raises(TooLongError, match="maximum context length is 100"):
        perturbed(server, linear_profile(first_token_s=0.02), plan)


def test_deployment_that_refuses_is_not_promised_to_be_gone_on_with(server: Imitation) -> None:
    server.refusals = [(429, {})] * 100
    plan = PerturbPlan(phase_s=1.0, phases=1)
    with pytest.raises(MeasurementError) as said:
        perturbed(server, linear_profile(first_token_s=0.02), plan)
    assert "free it of other load" in str(said.value)
    assert "same command" not in str(said.value)


def test_phase_too_short_for_readings_is_said(server: Imitation) -> None:
    plan = PerturbPlan(phase_s=0.3, phases=1)
    with pytest.raises(MeasurementError, match="longer phases"):
        perturbed(server, linear_profile(first_token_s=0.02), plan)


def test_nothing_beyond_chance_is_no_bottleneck() -> None:
    assert bottleneck_of([response("prefill", 0.3, -0.1), response("decode", 0.2, -0.2)]) is None


def test_what_moved_most_beyond_chance_is_the_bottleneck() -> None:
    found = [response("prefill", 0.9, -0.1), response("decode", 0.2, 0.1)]
    assert bottleneck_of(found) == "decode"
