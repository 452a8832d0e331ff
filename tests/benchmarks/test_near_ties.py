"""Greedy answers may differ where the model hardly prefers a token, and nowhere else."""

import math

import pytest

from benchmarks.serving.near_ties import (
    Difference,
    Token,
    answer_of,
    first_difference,
    is_within,
    noise,
    parting,
)


def answer(text: str, *gaps: float) -> tuple[Token, ...]:
    return tuple(Token(letter, gap) for letter, gap in zip(text, gaps, strict=True))


PLAIN = answer("abcd", 2.0, 3.0, 0.1, 4.0)
TIED = answer("abxd", 2.0, 3.0, 0.2, 9.0)
OTHER = answer("aycd", 2.0, 1.5, 0.1, 4.0)


def test_a_completion_tells_its_tokens_with_the_gap_to_the_second_likeliest() -> None:
    logprobs = {
        "tokens": ["a", "b"],
        "token_logprobs": [-0.1, -0.7],
        "top_logprobs": [{"a": -0.1, "b": -2.1}, {"b": -0.7}],
    }
    body = {"choices": [{"text": "ab", "logprobs": logprobs}]}
    assert answer_of(body) == (Token("a", pytest.approx(2.0)), Token("b", math.inf))


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [{"logprobs": None}]}])
def test_without_logprobs_there_is_nothing_to_compare(body) -> None:
    assert answer_of(body) is None


def test_only_the_first_difference_counts_and_by_the_clearer_of_both() -> None:
    tied = Difference(prompt=0, position=2, reference_gap=0.1, gap=0.2)
    assert first_difference(PLAIN, PLAIN) is None
    assert first_difference(PLAIN, TIED) == tied
    assert tied.clearest == 0.2
    other = Difference(prompt=7, position=1, reference_gap=3.0, gap=1.5)
    assert first_difference(PLAIN, OTHER, prompt=7) == other
    assert other.clearest == 3.0


def test_an_answer_that_ends_early_differs_where_the_other_goes_on() -> None:
    early = first_difference(PLAIN, PLAIN[:2])
    assert early == Difference(prompt=0, position=2, reference_gap=0.1, gap=None)
    late = first_difference((), PLAIN)
    assert late == Difference(prompt=0, position=0, reference_gap=None, gap=2.0)
    assert late.clearest == 2.0


def test_ways_are_compared_over_what_both_answered() -> None:
    found = parting([PLAIN, PLAIN, None, PLAIN], [PLAIN, TIED, PLAIN, None])
    assert (found.asked, found.compared, found.equal) == (4, 2, 1)
    assert found.differences == (Difference(prompt=1, position=2, reference_gap=0.1, gap=0.2),)
    assert found.largest_gap == 0.2


def test_a_way_that_does_not_answer_every_prompt_is_not_as_good_as_one_server() -> None:
    assert not is_within(parting([PLAIN, PLAIN], [PLAIN, None]), 1.0)


def test_a_way_may_differ_no_more_clearly_than_one_server_from_itself() -> None:
    repeated = noise([[PLAIN, OTHER], [TIED, OTHER], [PLAIN, OTHER]])
    assert repeated == 0.2
    assert is_within(parting([PLAIN], [TIED]), repeated)
    assert not is_within(parting([PLAIN], [OTHER]), repeated)


def test_where_one_server_always_says_the_same_every_way_has_to() -> None:
    repeated = noise([[PLAIN], [PLAIN]])
    assert repeated == 0.0
    assert is_within(parting([PLAIN], [PLAIN]), repeated)
    assert not is_within(parting([PLAIN], [TIED]), repeated)
