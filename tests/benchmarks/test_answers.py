"""What the serving benchmark says of answers that differ: which prompt, which token, how near."""

import asyncio
import json

import pytest

from benchmarks.serving.answers import ask_with_logprobs
from benchmarks.serving.answers_told import Asked, Told, told
from benchmarks.serving.near_ties import Answer, Token
from tests.fakes.upstream import Received, StubUpstream, says, whole

PROMPTS = ("zero", "one", "two")
ASKED = Asked(prompts=PROMPTS, input_tokens=(8, 40, 700))


def server(**second_tokens: tuple[int, float]) -> StubUpstream:
    """Answers 5 and then 6 to every prompt; another second token with its gap where named."""

    async def answer(writer: asyncio.StreamWriter, request: Received) -> None:
        body = json.loads(request.body)
        assert (body["temperature"], body["logprobs"]) == (0, 2)
        second, gap = second_tokens.get(body["prompt"], (6, 2.0))
        spelled = ["token_id:5", f"token_id:{second}"]
        tops = [
            {spelled[0]: -0.1, "token_id:9": -1.1},
            {spelled[1]: -0.5, "token_id:9": -0.5 - gap},
        ]
        logprobs = {"tokens": spelled, "top_logprobs": tops}
        said = {"choices": [{"text": "", "logprobs": logprobs}]}
        writer.write(whole(json.dumps(said).encode()))

    return StubUpstream(answer)


def asked(stub: StubUpstream, **how: int) -> list[Answer | None]:
    with stub:
        return asyncio.run(ask_with_logprobs(stub.url, PROMPTS, **how))


def test_answers_come_back_in_order_of_the_prompts_whatever_the_order_of_asking() -> None:
    stub = server(one=(7, 0.25))
    found = asked(stub, in_flight=1, shuffled_by=1)
    sent = [json.loads(request.body)["prompt"] for request in stub.received]
    assert sorted(sent) == sorted(PROMPTS)
    assert sent != list(PROMPTS)
    assert [answer and answer[1].text for answer in found] == [
        "token_id:6",
        "token_id:7",
        "token_id:6",
    ]


@pytest.mark.parametrize("said", [whole(b"no JSON"), whole(b"{}", status="503 Busy")])
def test_what_is_no_answer_is_none_and_the_next_prompt_is_asked(said) -> None:
    assert asked(StubUpstream(says(said))) == [None, None, None]


def test_each_difference_tells_prompt_length_token_and_both_gaps() -> None:
    reference = asked(server(two=(6, 0.05)))
    found = Told(
        ways={"one engine": reference, "smg": asked(server(two=(8, 0.04)))},
        repeats=[reference, reference],
    )
    lines = told(found, ASKED)
    assert "| smg | 2 | 700 | 1 | 0.0500 | 0.0400 | always equal |" in lines
    assert "| smg | 3 of 3 | 2 | - | 0.0500 | NO |" in lines


def test_runs_of_one_engine_that_part_more_clearly_excuse_a_way_and_are_listed() -> None:
    reference = asked(server(two=(6, 0.05)))
    found = Told(
        ways={"one engine": reference, "smg": asked(server(two=(8, 0.04)))},
        repeats=[reference, asked(server(one=(7, 0.25), two=(8, 0.06)))],
    )
    lines = told(found, ASKED)
    assert "| smg | 2 | 700 | 1 | 0.0500 | 0.0400 | part at 1, gap 0.0600 |" in lines
    assert "| smg | 3 of 3 | 2 | - | 0.0500 | yes |" in lines
    assert lines[-2:] == ["| 1 | 40 | 1 | 2.0000 | 0.2500 |", "| 2 | 700 | 1 | 0.0500 | 0.0600 |"]


def test_streams_are_compared_with_the_references_and_missing_answers_are_not_met() -> None:
    whole_answer = (Token("token_id:5", 1.0),)
    found = Told(
        ways={"one engine": [whole_answer] * 3, "gate": [whole_answer, None, whole_answer]},
        streamed={"one engine": ["a", "b"], "gate": ["a", None]},
        repeats=[[whole_answer] * 3],
    )
    lines = told(found, ASKED)
    assert "| one engine | 3 of 3 | 3 | 2 of 2 | 0.0000 | yes |" in lines
    assert "| gate | 2 of 3 | 2 | 1 of 2 | 0.0000 | NO |" in lines
    assert "No way differs." in lines
