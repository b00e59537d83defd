"""A server that can lie: it answers v1 rightly with a key of its own, until a test sets `misbehave`.

It keeps what a thief would: `best_change`, the least change that any payment it ever saw leaves the payer.
"""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from coincurve import PrivateKey

from paychan.chain.debug import DEBUG_FUNDING_VALUE
from paychan.core.network import TEST
from paychan.core.payment import decode_payment
from paychan.core.script import funding_address, redeem_script

TXID = "ab" * 32
CUT = "cut"


class ScriptedServer(ThreadingHTTPServer):
    """`misbehave(method, answer)` gets the right (status, content, headers) and returns another: content may be bytes; CUT
    instead of a tuple breaks the connection after the request was taken in; None leaves it right."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key = PrivateKey()
        self.held: str = ""
        self.change = DEBUG_FUNDING_VALUE
        self.best_change = DEBUG_FUNDING_VALUE
        self.requests: list[tuple[str, str]] = []
        self.misbehave: Callable[[str, tuple], object] = lambda method, answer: None
        self.on_arrival: Callable[[str, str], None] = lambda method, payment: None
        self.is_closed = False

    def __enter__(self) -> "ScriptedServer":
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that has gone away, as impatient ones do."""

    @property
    def port(self) -> int:
        return self.server_address[1]

    def judge(self, method: str, target: str) -> tuple:
        """Return the right answer."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        if method == "GET":
            redeem = redeem_script(self.key.public_key.format(), bytes.fromhex(query["client_pubkey"]), int(query["exp_time"]))
            return (
                200,
                {
                    "server_pubkey": self.key.public_key.format().hex(),
                    "funding_address_copy": funding_address(TEST, redeem),
                    "settlement_period_hours": 6,
                    "funding_tx_min_conf": 0,
                    "open_price": 1000,
                },
                {},
            )
        payment = decode_payment(query["payment"])
        self.best_change = min(self.best_change, payment.change_value)
        self.on_arrival(method, query["payment"])
        if method == "POST" and self.held:
            return 409, {"code": "channel_exists", "detail": "exists"}, {}
        if method == "DELETE":
            if query["payment"] != self.held:
                return 400, {"code": "not_newest_payment", "detail": "no"}, {}
            self.is_closed = True
            return 202, result("closed", self.change, 0, TXID), {}
        if self.is_closed:
            return 404, {"code": "no_such_payment", "detail": "settled"}, {}
        if payment.change_value > self.change:
            return 400, {"code": "out_of_order", "detail": "out-of-order payment"}, {}
        received, self.change, self.held = self.change - payment.change_value, payment.change_value, query["payment"]
        if payment.exhausts:
            self.is_closed = True
            return 202, result("closed", 0, received, TXID), {}
        return 201 if method == "POST" else 200, result("open", self.change, received, None), {}


def result(status: str, left: int, received: int, txid: str | None) -> dict:
    return {"channel_status": status, "channel_value_left": left, "value_received": received, "settlement_txid": txid}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ScriptedServer

    def _answer(self) -> None:
        self.server.requests.append((self.command, self.path))
        answer = self.server.judge(self.command, self.path)
        answer = self.server.misbehave(self.command, answer) or answer
        if answer == CUT:
            self.close_connection = True
            return
        status, content, headers = answer
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        pass
