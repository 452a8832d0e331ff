"""vLLM's KV event messages as it writes them, and a publisher of them on real sockets."""

import threading
from contextlib import contextmanager

import msgspec
import zmq

from serving.kv.events import Batch, Medium, Removed, Stored

END = (-1).to_bytes(8, "big", signed=True)


def mixed(number):
    """Hashes look random; low bits of small numbers do not."""
    return (number * 0x9E3779B97F4A7C15) % 2**64


def stored(hashes, parent=None, tokens=128, **more):
    """One event in vLLM's form; the token ids are there, as in the real one."""
    return {
        "type": "BlockStored",
        "block_hashes": list(hashes),
        "parent_block_hash": parent,
        "token_ids": [7] * (tokens * len(hashes)),
        "block_size": tokens,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        **more,
    }


def removed(hashes, medium="GPU"):
    return {"type": "BlockRemoved", "block_hashes": list(hashes), "medium": medium}


def payload(*events, at_s=1.0):
    return msgspec.msgpack.encode([at_s, list(events), 0])


def store(blocks, parent=None, *, at_s=1.0, tokens=128, medium=Medium.DEVICE):
    """A batch of one stored event, as values."""
    event = Stored(blocks=tuple(blocks), parent=parent, block_tokens=tokens, medium=medium)
    return Batch(at_s=at_s, events=(event,))


def remove(blocks, *, at_s=1.0, medium=Medium.DEVICE):
    return Batch(at_s=at_s, events=(Removed(blocks=tuple(blocks), medium=medium),))


class Publisher:
    """As vLLM's ZmqEventPublisher: connects, numbers its messages, answers with past ones."""

    def __init__(self, context, events, replay=None):
        self._pub = context.socket(zmq.PUB)
        self._pub.setsockopt(zmq.LINGER, 0)
        self._pub.connect(events)
        self._router = None
        self._buffer = []
        self._next = 0
        if replay is not None:
            self._router = context.socket(zmq.ROUTER)
            self._router.setsockopt(zmq.LINGER, 0)
            self._router.bind(replay)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def send(self, body, *, lost=False):
        """Publish a payload; a lost one is numbered and buffered, and never arrives."""
        number = self._next
        self._next += 1
        self._buffer.append((number, body))
        if not lost:
            self._pub.send_multipart([b"", number.to_bytes(8, "big"), body])

    def close(self):
        self._stop.set()
        self._thread.join()
        self._pub.close()
        if self._router is not None:
            self._router.close()

    def _serve(self):
        while not self._stop.is_set():
            if self._router is None or not self._router.poll(20):
                self._stop.wait(0.02)
                continue
            client, _empty, since = self._router.recv_multipart()
            for number, body in list(self._buffer):
                if number >= int.from_bytes(since, "big"):
                    self._router.send_multipart([client, b"", b"", number.to_bytes(8, "big"), body])
            self._router.send_multipart([client, b"", b"", END, b""])


@contextmanager
def publisher(events, replay=None):
    context = zmq.Context()
    sender = Publisher(context, events, replay)
    try:
        yield sender
    finally:
        sender.close()
        context.destroy(linger=0)
