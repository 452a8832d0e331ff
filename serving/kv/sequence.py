"""Whether a worker's event messages came all: gaps, repeats and restarts by sequence number."""

from dataclasses import dataclass
from enum import StrEnum


class Arrival(StrEnum):
    """What a message is to the stream so far.

    next: the one that had to come. gap: some before it are missing. repeat: known already, by a
    replay. restart: its sender began anew, so that everything known of its cache is gone.
    """

    NEXT = "next"
    GAP = "gap"
    REPEAT = "repeat"
    RESTART = "restart"


@dataclass(slots=True)
class Stream:
    """One worker's messages.

    Parameters
    ----------
    expected : int
        Number of the next message; a worker counts from 0.
    last_at_s : float
        The sender's clock in the last message.
    missing : int
        Messages that are missing, and were not replayed: what is known is incomplete.
    """

    expected: int = 0
    last_at_s: float = float("-inf")
    missing: int = 0
    restarts: int = 0

    def place(self, number: int, at_s: float) -> Arrival:
        """Say what message `number` is; does not take it."""
        if number == self.expected:
            return Arrival.NEXT
        if number > self.expected:
            return Arrival.GAP
        # A sender publishes in order: a lower number is an old message, or a new sender.
        return Arrival.RESTART if at_s > self.last_at_s else Arrival.REPEAT

    def take(self, number: int, at_s: float) -> Arrival:
        """Take a message in; those before it that did not come count as missing."""
        arrival = self.place(number, at_s)
        if arrival is Arrival.REPEAT:
            return arrival
        if arrival is Arrival.RESTART:
            self.begin_anew()
        self.missing += number - self.expected
        self.expected = number + 1
        self.last_at_s = at_s
        return arrival

    def begin_anew(self) -> None:
        """Forget a sender that has ended."""
        self.restarts += 1
        self.expected = 0
        self.missing = 0
        self.last_at_s = float("-inf")
