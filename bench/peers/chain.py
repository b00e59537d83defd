"""The chain that mppx's session server asks about its channels, on loopback: no real one is within reach of a benchmark.

It answers JSON-RPC as a node of that chain does: `getChannelState(bytes32)` of a channel that is open, with its deposit, nothing
settled and no close requested, in the ABI's form; and the chain's id. Whatever else it is asked it refuses as a node refuses what
it does not know, and notes: then this is not what mppx needs. mppx asks once in five seconds for each channel.
"""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHAIN_ID = 42431
DEPOSIT = 10**12
STATE_SELECTOR = "0xd18da8b1"
"""The first four bytes of keccak-256 of getChannelState(bytes32): whoever asks for the ABI's function sends them."""

UNKNOWN = {"code": -32601, "message": "the method does not exist"}
REVERTED = {"code": 3, "message": "execution reverted"}


def words(*values: int) -> str:
    """Return integers as the ABI writes a tuple of them: 32 bytes each, big-endian."""
    return "0x" + "".join(f"{value:064x}" for value in values)


def answer(call: Any, asked: Counter[str]) -> dict[str, Any]:
    """Return the answer to one call, and count it."""
    method, parameters = str(call.get("method")), call.get("params") or [{}]
    told: dict[str, Any] = {"jsonrpc": "2.0", "id": call.get("id")}
    if method == "eth_chainId":
        asked["the chain's id"] += 1
        return {**told, "result": hex(CHAIN_ID)}
    if method != "eth_call":
        asked[f"unknown: {method}"] += 1
        return {**told, "error": UNKNOWN}
    data = str(parameters[0].get("data") or parameters[0].get("input"))
    if not data.startswith(STATE_SELECTOR) or len(data) != len(STATE_SELECTOR) + 64:
        asked[f"unknown: eth_call of {data[:10]}"] += 1
        return {**told, "error": REVERTED}
    asked["a channel's state"] += 1
    return {**told, "result": words(0, DEPOSIT, 0)}


@contextmanager
def chain() -> Iterator[tuple[str, Counter[str]]]:
    """Run it; yield its URL, and a count of what it was asked."""
    asked: Counter[str] = Counter()

    class Node(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["content-length"])))
            told = [answer(call, asked) for call in content] if isinstance(content, list) else answer(content, asked)
            body = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Node)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
