"""Leave a loop of requests in an orderly way when the process is asked to end."""

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def run_until_asked_to_end(work: Coroutine[None, None, T]) -> T:
    """Run a coroutine as `asyncio.run` does, and cancel it on signals that are to end the process.

    A signal handler that raises SystemExit would raise it inside whichever request is being read,
    which the loop then reports as an exception that nobody took. Here the signal cancels the work,
    as SIGINT does by itself, and SystemExit leaves the loop when everything has been closed. Only
    signals count that the caller handles: the others keep their meaning.

    Raises
    ------
    SystemExit
        With 128 + number of the signal.
    """
    asked: list[int] = []

    async def guarded() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def leave(number: int) -> None:
            asked.append(number)
            task.cancel()

        handled = {n: signal.getsignal(n) for n in _ENDING if callable(signal.getsignal(n))}
        for number in handled:
            loop.add_signal_handler(number, leave, number)
        try:
            return await work
        finally:
            for number, handler in handled.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(work)
    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        if asked:
            raise SystemExit(128 + asked[0]) from None
        raise
