#!/usr/bin/env -S python3 -I -S
"""Stands in for `vllm serve`: P/D requests, streams, health and metrics, in a second.

Started as a worker's interpreter, so that launcher, supervisors and routers are the real ones.
Options of its own: `--stub-start-s`, `--stub-token-s` (a token of an answer), `--stub-dies` (ends
at once with a message), `--stub-dies-of` (ends with that message, a long traceback after it),
`--stub-without-nixl` (moves no KV caches), `--stub-waiting-in` (a folder: its KV cache is in
use, and where a file there has the number of its port, a request waits).
"""

import argparse
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class State:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running = 0
        self.computed = self.transferred = self.generated = self.finished = 0

    def add(self, **changes: int) -> None:
        with self.lock:
            for name, change in changes.items():
                setattr(self, name, getattr(self, name) + change)


def metrics(state: State, *, nixl: bool, waiting: bool, holds: bool) -> str:
    by_source = "vllm:prompt_tokens_by_source_total"
    lines = [
        f'vllm:num_requests_running{{model_name="tiny"}} {state.running}',
        f'vllm:num_requests_waiting{{model_name="tiny"}} {int(waiting)}',
        f'vllm:kv_cache_usage_perc{{model_name="tiny"}} {float(holds) / 2}',
        'vllm:cache_config_info{block_size="128",num_gpu_blocks="2048"} 1.0',
        f'{by_source}{{source="local_compute"}} {state.computed}',
        f'{by_source}{{source="local_cache_hit"}} 0',
        f'{by_source}{{source="external_kv_transfer"}} {state.transferred}',
        f"vllm:prompt_tokens_total {state.computed + state.transferred}",
        f"vllm:generation_tokens_total {state.generated}",
        "vllm:num_preemptions_total 0",
        f"vllm:request_success_total {state.finished}",
    ]
    if nixl:
        lines += [
            f"vllm:nixl_xfer_time_seconds_count {int(state.transferred > 0)}",
            "vllm:nixl_xfer_time_seconds_sum 0.0",
            "vllm:nixl_bytes_transferred_sum 0.0",
            "vllm:nixl_num_failed_transfers_total 0",
            "vllm:nixl_num_kv_expired_reqs_total 0",
        ]
    return "\n".join(lines) + "\n"


def handler(  # noqa: C901  one short method a path
    options: argparse.Namespace, state: State
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments):
            pass

        def do_GET(self):
            if self.path == "/health":
                self.reply(b"")
            elif self.path == "/metrics":
                nixl = not options.stub_without_nixl
                told = metrics(state, nixl=nixl, waiting=self.waits(), holds=self.holds())
                self.reply(told.encode(), kind="text/plain; version=0.0.4")
            elif self.path == "/v1/models":
                model = {"id": options.served_model_name, "object": "model", "max_model_len": 4096}
                self.reply_json({"object": "list", "data": [model]})
            elif self.path == "/version":
                self.reply_json({"version": "0.32.0"})
            else:
                self.reply(b"{}", status=404)

        def holds(self):
            return options.stub_waiting_in is not None

        def waits(self):
            return self.holds() and (options.stub_waiting_in / str(options.port)).exists()

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            transfer = body.get("kv_transfer_params") or {}
            prompt = len(str(body.get("prompt", "")).split())
            state.add(running=1)
            try:
                if transfer.get("do_remote_prefill"):
                    state.add(transferred=prompt)
                else:
                    state.add(computed=prompt)
                if transfer.get("do_remote_decode"):
                    handle = {"do_remote_prefill": True, "do_remote_decode": False}
                    where = {"remote_engine_id": "stub", "remote_block_ids": [1]}
                    where |= {"remote_host": "127.0.0.1", "remote_port": 1}
                    self.whole(prompt, kv_transfer_params=handle | where)
                elif body.get("stream"):
                    self.stream(prompt, int(body["max_tokens"]))
                else:
                    self.whole(prompt)
                state.add(finished=1)
            except OSError:
                self.close_connection = True
            finally:
                state.add(running=-1)

        def whole(self, prompt, **more):
            usage = {"prompt_tokens": prompt, "completion_tokens": 1, "total_tokens": prompt + 1}
            choice = {"index": 0, "text": "x", "finish_reason": "length"}
            body = {"id": "c", "object": "text_completion", "model": options.served_model_name}
            self.reply_json({**body, "choices": [choice], "usage": usage, **more})

        def stream(self, prompt, tokens):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for token in range(1, tokens + 1):
                time.sleep(options.stub_token_s)
                usage = {"prompt_tokens": prompt, "completion_tokens": token}
                usage["total_tokens"] = prompt + token
                choice = {"index": 0, "text": f"{options.port} ", "finish_reason": None}
                self.chunk(json.dumps({"choices": [choice], "usage": usage}))
                state.add(generated=1)
            self.chunk("[DONE]")
            self.wfile.write(b"0\r\n\r\n")

        def chunk(self, text):
            data = f"data: {text}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

        def reply_json(self, body):
            self.reply(json.dumps(body).encode(), kind="application/json")

        def reply(self, body, status=200, kind="text/plain"):
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", default="tiny")
    parser.add_argument("--stub-start-s", type=float, default=0.0)
    parser.add_argument("--stub-token-s", type=float, default=0.005)
    parser.add_argument("--stub-dies", action="store_true")
    parser.add_argument("--stub-dies-of", default="")
    parser.add_argument("--stub-without-nixl", action="store_true")
    parser.add_argument("--stub-waiting-in", type=Path, default=None)
    options, _ = parser.parse_known_args([a for a in sys.argv[1:] if a != "-m"])
    if options.stub_dies_of:
        print(options.stub_dies_of, *["  a line of a traceback"] * 20, sep="\n", flush=True)
        return 1
    if options.stub_dies:
        print("RuntimeError: told to die", flush=True)
        return 3
    time.sleep(options.stub_start_s)
    print(f"listening on {options.port}", flush=True)
    Server(("127.0.0.1", options.port), handler(options, State())).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
