"""One end of a NIXL transfer, in the engine's environment; spoken to over standard input.

    python nixl_peer.py hold NAME BYTES          # holds memory for others to read, until EOF
    python nixl_peer.py read NAME BYTES PIECE    # reads from a holder

A holder prints one JSON line: its metadata (hex) and its memory's address. A reader first takes
such a line; then every line `SIZE COUNT` makes it read SIZE bytes COUNT times, in pieces as large
as one block of one layer is in an engine, and print the seconds as a JSON list. The first read
includes the handshake. The progress thread waits as long as it does in the engines.
"""

import json
import sys
import time

import numpy as np
import poolwise_calm
from nixl import _api

POLL_S = 0.0003


def main() -> None:
    what, name, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    poolwise_calm._calm_nixl(_api.nixlBind)
    agent = _api.nixl_agent(name, _api.nixl_agent_config(num_threads=1))
    memory = np.ones(size, dtype=np.uint8)
    address = memory.ctypes.data
    agent.register_memory([(address, size, 0, "")], "DRAM")
    if what == "hold":
        say({"metadata": agent.get_agent_metadata().hex(), "address": address})
        sys.stdin.read()
        return
    piece = int(sys.argv[4])
    say({"ready": name})
    holder = json.loads(sys.stdin.readline())
    remote = agent.add_remote_agent(bytes.fromhex(holder["metadata"]))
    for line in sys.stdin:
        wanted, count = map(int, line.split())
        ends = [
            agent.get_xfer_descs(
                [(base + at, min(piece, wanted - at), 0) for at in range(0, wanted, piece)], "DRAM"
            )
            for base in (address, holder["address"])
        ]
        say([read_s(agent, remote, ends) for _ in range(count)])


def read_s(agent: object, remote: str, ends: list[object]) -> float:
    """Seconds of one read, polled for as often as an engine would at the most."""
    began = time.perf_counter()
    handle = agent.initialize_xfer("READ", *ends, remote)
    state = agent.transfer(handle)
    while state == "PROC":
        time.sleep(POLL_S)
        state = agent.check_xfer_state(handle)
    took = time.perf_counter() - began
    if state != "DONE":
        raise SystemExit(f"a transfer ended as {state}")
    agent.release_xfer_handle(handle)
    return took


def say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
