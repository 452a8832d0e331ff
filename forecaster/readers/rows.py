"""One row of a trace, and the bounds that every row has to keep."""

from typing import NamedTuple, Protocol

from planner.domain.slo import DEFAULT_CLASS

LONGEST_REQUEST_TOKENS = 10_000_000
"""No model takes a longer context (Llama 4 Scout states 10 M tokens): a longer row is an error."""

LATEST_ARRIVAL_S = 4.2e9
"""Year 2103 when counted from 1970: a later time stamp is an error."""

LONGEST_CLASS = 200


class Row(NamedTuple):
    """One request as the file states it.

    `arrival_s` counts seconds from the trace's own zero; `block_ids` is None in formats without
    prefix blocks.
    """

    arrival_s: float
    input_tokens: int
    output_tokens: int
    block_ids: list[int] | None
    request_class: str = DEFAULT_CLASS


class FailedRequest(NamedTuple):
    """A request that got no answer: no fault of the file, and no part of the workload."""

    arrival_s: float


class RowParser(Protocol):
    """Turns one line into one request."""

    def parse(self, text: str) -> Row | FailedRequest:
        """The request in this line; a ValueError says what is wrong with it."""
        ...

    def arrival_s(self, text: str) -> float:
        """When the row says that it arrived, whatever else is in it; a ValueError: it does not."""
        ...


def check_tokens(field: str, value: int) -> int:
    """Refuse a length that no request can have.

    Raises
    ------
    ValueError
        When `value` is below 1 or above `LONGEST_REQUEST_TOKENS`.
    """
    if value < 1:
        raise ValueError(f"{field} must be at least 1, got {shown(value)}")
    if value > LONGEST_REQUEST_TOKENS:
        raise ValueError(f"{field} must be at most {LONGEST_REQUEST_TOKENS}, got {shown(value)}")
    return value


def check_arrival(field: str, arrival_s: float) -> float:
    """Refuse a time stamp that cannot be one.

    Raises
    ------
    ValueError
        When the time is negative, not finite, or after `LATEST_ARRIVAL_S`.
    """
    if not 0 <= arrival_s <= LATEST_ARRIVAL_S:
        raise ValueError(f"{field} must lie between 0 s and {LATEST_ARRIVAL_S:g} s")
    return arrival_s


def check_class(name: str) -> str:
    """Refuse a name that cannot be a request class.

    Raises
    ------
    ValueError
        When it is empty, long, or holds what does not print.
    """
    name = name.strip()
    if not 1 <= len(name) <= LONGEST_CLASS or not name.isprintable():
        raise ValueError(
            f"a request class has 1 to {LONGEST_CLASS} printable characters, got {shown(name)}"
        )
    return name


def shown(value: object) -> str:
    """A value as it may stand in a message: printable and short."""
    # An integer of more than 4300 digits cannot be turned into text (CVE-2020-10735).
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
