"""`--event` and `--longest-prompt`: what they say, and what is said when they say nothing."""

import pytest

from planner.domain.errors import InputError
from planner.service.cli.event_option import EXAMPLES, event_of, longest_prompt_of
from planner.simulate import Incident


def test_every_example_is_an_event():
    incidents = [event_of(text).incident for text in EXAMPLES.split(" · ")]
    assert set(incidents) == set(Incident)


def test_times_are_seconds_with_or_without_their_unit():
    assert event_of("fail@90:pool=1,replica=0") == event_of(" FAIL@90.0s : pool = 1, replica=0")
    assert event_of("reclaim@1e2s:pool=0,replica=0,notice=2.5s").notice_s == 2.5


def test_a_pool_may_be_named_by_its_label_which_holds_colons():
    event = event_of("drain@90s:pool=decode:h100:tp2,replica=3")
    assert (event.pool, event.replica) == ("decode:h100:tp2", 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "write one as fail@120s"),
        ("fail", "write one as fail@120s"),
        ("fail@xs:pool=0,replica=0", "'xs' is no time in seconds"),
        ("fail@nan:pool=0,replica=0", "the instant: input should be a finite number"),
        ("fail@inf:pool=0,replica=0", "the instant: input should be a finite number"),
        ("fail@-1s:pool=0,replica=0", "the instant: input should be greater than or equal to 0"),
        ("melt@1s:pool=0,replica=0", "the incident: input should be 'fail'"),
        ("fail@1s:pool=0", "replica= is missing"),
        ("fail@1s:replica=0", "pool= is missing"),
        ("fail@1s:pool=0,replica=x", "replica=: input should be a valid integer"),
        ("fail@1s:pool=0,replica=-1", "replica=: input should be greater"),
        ("fail@1s:pool=0,pool=1,replica=0", "gives pool twice"),
        ("fail@1s:pool=0,replica=0,", "'' is not one of pool="),
        ("fail@1s:pool=0,replica=0,colour=red", "'colour=red' is not one of pool="),
        ("fail@1s:pool=0,replica=0,restarts=perhaps", "restarts is yes or no"),
        ("fail@1s:pool=0,replica=0,notice=3s", "notice= is for incident reclaim, not fail"),
        ("drain@1s:pool=0,replica=0,restarts=no", "restarts is for incident fail, not drain"),
        ("reclaim@1s:pool=0,replica=0,notice=soon", "'soon' is no time in seconds"),
        ("flip@1s:pool=0,replica=0", "a flip needs to=, the pool that the replica joins"),
    ],
)
def test_what_is_no_event_is_refused_in_the_words_of_the_option(text, said):
    with pytest.raises(InputError) as refused:
        event_of(text)
    assert said in str(refused.value)
    assert f"--event {text!r}" in str(refused.value)


def test_a_longest_prompt_names_a_pool_and_tokens():
    assert longest_prompt_of("0=2048") == ("0", 2048)
    assert longest_prompt_of("prefill:h100:tp2 = 64") == ("prefill:h100:tp2", 64)


@pytest.mark.parametrize("text", ["", "0", "0=", "0=0", "0=-1", "0=many", "0=1e3", "0=9999999999"])
def test_what_is_no_longest_prompt_is_refused(text):
    with pytest.raises(InputError, match="write POOL=TOKENS"):
        longest_prompt_of(text)
