"""Words that are one token each for a server: prompts of known lengths are made of them."""

from importlib.resources import files

from planner.domain.errors import MeasurementError
from profiler.measure.requests import Sender, TooLongError

LEAST_WORDS = 64


async def learn_words(sender: Sender) -> tuple[str, ...]:
    """Find words of one token by what the server counts: halves that are off are halved again.

    Raises
    ------
    MeasurementError
        When it does not count prompt tokens, or too few words are single tokens.
    """
    words = files("profiler.measure").joinpath("common_words.txt").read_text().split()
    single = await _count(sender, words[:1])
    double = await _count(sender, words[:1] * 2)
    if single == 0 or double <= single:
        raise MeasurementError(
            f"{sender.client.url} does not say how many tokens a prompt has (usage.prompt_tokens), "
            "so prompts of known lengths cannot be made for it"
        )
    extra = single - 1
    if double - single != 1:
        extra = 0
    found = await _single_tokens(sender, words, extra)
    if len(found) < LEAST_WORDS:
        raise MeasurementError(
            f"only {len(found)} of {len(words)} common English words are single tokens of "
            f"{sender.client.model}: prompts of known lengths cannot be made for it; give a "
            "folder with words.json (a list of single-token words) by --words"
        )
    return tuple(found)


async def _single_tokens(sender: Sender, words: list[str], extra: int) -> list[str]:
    try:
        if await _count(sender, words) - extra == len(words):
            return words
    except TooLongError:
        if len(words) == 1:
            raise
    if len(words) == 1:
        return []
    middle = len(words) // 2
    return [
        *await _single_tokens(sender, words[:middle], extra),
        *await _single_tokens(sender, words[middle:], extra),
    ]


async def _count(sender: Sender, words: list[str]) -> int:
    prompt = "".join(f" {w}" for w in words)
    answer = await sender.one(lambda: prompt, 1)
    return answer.input_tokens
