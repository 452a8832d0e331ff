"""Time a fixed piece of work again and again: how fast this machine's processors are just now.

    python -I gauge.py PERIOD_S

Prints one line per reading: processor seconds of the work. Cores that share their hardware with
somebody else's (hyperthreads, other guests of the host) slow down without any process to be
seen for it.
"""

import sys
import time

LOOPS = 20_000


def work_s() -> float:
    """Processor seconds of the fixed work."""
    began = time.thread_time()
    total = 0
    for i in range(LOOPS):
        total += i
    return time.thread_time() - began


def main() -> None:
    period_s = float(sys.argv[1])
    while True:
        sys.stdout.write(f"{work_s():.6f}\n")
        sys.stdout.flush()
        time.sleep(period_s)


if __name__ == "__main__":
    main()
