"""Counts tokens and their times in an answer that passes by, without holding it up."""

import re

_ANSWER_TOKENS = re.compile(rb'"completion_tokens":\s*(\d+)')
_PROMPT_TOKENS = re.compile(rb'"prompt_tokens":\s*(\d+)')
_CACHED_TOKENS = re.compile(rb'"cached_tokens":\s*(\d+)')
_NO_CHOICE = re.compile(rb'"choices":\s*\[\s*\]')
_NO_TEXT = re.compile(rb'"(?:text|content)":\s*""')
_ROLE = re.compile(rb'"role":\s*"assistant"')
_ERROR = b'data: {"error"'
_TEXT_KEYS = (b'"text":', b'"content":')
LONGEST_EVENT_BYTES = 1 << 20
"""Longer pieces without an end of event are not looked at."""


class AnswerMeter:
    """What one answer held. Times are seconds of one monotonic clock.

    A stream's chunk with text counts as one token, unless the server counts itself (`usage`);
    a quote inside a text is escaped there, so that no text can look like a count.

    Parameters
    ----------
    stream : bool
        Whether the answer is an event stream.
    """

    __slots__ = (
        "_rest",
        "_stream",
        "cached_tokens",
        "error",
        "first_token_s",
        "gaps_s",
        "input_tokens",
        "last_token_s",
        "output_tokens",
        "tokens_counted",
    )

    def __init__(self, *, stream: bool) -> None:
        self._stream = stream
        self._rest = b""
        self.first_token_s: float | None = None
        self.last_token_s: float | None = None
        self.gaps_s: list[float] = []
        self.output_tokens = 0
        self.input_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.tokens_counted = False
        self.error = False

    def take(self, data: bytes, now_s: float) -> None:
        """Note a piece of the body that has just come."""
        if not self._stream:
            if len(self._rest) + len(data) <= LONGEST_EVENT_BYTES:
                self._rest += data
            return
        whole = self._rest + data if self._rest else data
        if (new := self._plain_tokens(whole)) > 0:
            self._rest = b""
            self.output_tokens += new
            self._came(new, now_s)
            return
        *events, self._rest = whole.split(b"\n\n")
        if len(self._rest) > LONGEST_EVENT_BYTES:
            self._rest = b""
        if (new := sum(self._note(event) for event in events)) > 0:
            self._came(new, now_s)

    def finish(self) -> None:
        """The body has come to its end."""
        if not self._stream:
            self._read_usage(self._rest)
        self._rest = b""

    def _plain_tokens(self, data: bytes) -> int:
        """Tokens in whole events of the usual spelling, counted at once; 0: look at each.

        Inside a text quotes are escaped, so that none of these can be part of one.
        """
        if self.tokens_counted or not data.endswith(b"\n\n"):
            return 0
        if b'"completion_tokens"' in data or b'"error"' in data:
            return 0
        return sum(data.count(key + b'"') - data.count(key + b'""') for key in _TEXT_KEYS)

    def _note(self, event: bytes) -> int:
        """Tokens that an event brings; the total in a last event without text brings none."""
        if b'"completion_tokens"' in event:
            before = self.output_tokens
            self._read_usage(event)
            return 0 if _NO_CHOICE.search(event) else self.output_tokens - before
        if event.startswith(_ERROR):
            self.error = True
        if self.tokens_counted or not _is_token(event):
            return 0
        self.output_tokens += 1
        return 1

    def _read_usage(self, text: bytes) -> None:
        if found := _ANSWER_TOKENS.search(text):
            self.tokens_counted = True
            self.output_tokens = int(found.group(1))
        if found := _PROMPT_TOKENS.search(text):
            self.input_tokens = int(found.group(1))
        if found := _CACHED_TOKENS.search(text):
            self.cached_tokens = int(found.group(1))

    def _came(self, tokens: int, now_s: float) -> None:
        """So many tokens came together: one gap, and none between them."""
        if self.first_token_s is None:
            self.first_token_s = now_s
        elif self.last_token_s is not None:
            self.gaps_s.append(now_s - self.last_token_s)
        self.gaps_s.extend([0.0] * (tokens - 1))
        self.last_token_s = now_s

    @property
    def tpot_s(self) -> float | None:
        """Mean gap, seconds; None with fewer than two tokens."""
        if self.first_token_s is None or self.last_token_s is None or self.output_tokens < 2:
            return None
        return (self.last_token_s - self.first_token_s) / (self.output_tokens - 1)

    @property
    def itl_p99_s(self) -> float | None:
        """99th percentile of the gaps, seconds; None without any."""
        if not self.gaps_s:
            return None
        return sorted(self.gaps_s)[min(int(0.99 * len(self.gaps_s)), len(self.gaps_s) - 1)]


def _is_token(event: bytes) -> bool:
    """Whether an event of a stream carries text (or a part of a tool call or of reasoning)."""
    if not event.startswith(b"data: {"):
        return False
    if _NO_CHOICE.search(event):
        return False
    return not (_NO_TEXT.search(event) and (_ROLE.search(event) or b'"finish_reason":"' in event))
