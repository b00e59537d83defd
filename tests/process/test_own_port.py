"""Aim: a worker's own port speaks HTTP/1.1 as strictly and as patiently as a reader of RFC 9112 hopes, whatever its clients do.
Method: raw sockets against real workers; bytes go in as no client library sends them, and all that comes back is read."""

import json
import os
import signal
import socket
import time
from contextlib import suppress

import pytest

from paychan._fast.direct import PIPELINED_MAX
from paychan._fast.http import HEAD_SIZE_MAX, HEADERS_MAX, TARGET_SIZE_MAX
from paychan.core.sender import sign_payment
from tests.raw_http import CORS, SECONDS_MAX, RawAnswer, ask
from tests.system import Payer, System, resident_bytes, running, wait_until
from tests.variants import CONNECTIONS_MAX

SENT: list[str] = []
HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"


class Wire:
    """One connection, and all answers that come on it, in order."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, has_body: bool = True) -> RawAnswer:
        """Return the next answer; status 0: the connection ended."""
        while b"\r\n\r\n" not in self._rest:
            if not self._receive():
                assert self._rest == b""
                return RawAnswer()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        status_line, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", "0")) if has_body else 0
        while len(self._rest) < size:
            assert self._receive(), "the body is cut short"
        body, self._rest = self._rest[:size], self._rest[size:]
        version, status, _ = status_line.split(" ", 2)
        return RawAnswer(int(status), version, headers, body)

    def _receive(self) -> bytes:
        piece = b""
        with suppress(ConnectionResetError):
            piece = self.socket.recv(1 << 20)
        self._rest += piece
        return piece

    def rest(self) -> bytes:
        """Return everything up to the end of the connection."""
        while self._receive():
            pass
        rest, self._rest = self._rest, b""
        return rest


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with running(tmp_path_factory.mktemp("own"), door="own") as system:
        yield system


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """A system whose own ports have little patience and few places."""
    with running(tmp_path_factory.mktemp("hasty"), door="own", variant="short limits") as system:
        yield system


@pytest.fixture(scope="module")
def port(system):
    return system.asked_port


@pytest.fixture(scope="module")
def payer(system) -> Payer:
    payer = system.payer("own port")
    assert payer.open().status == 201
    SENT.append(payer.newest.encode())
    return payer


def target_of(payer: Payer, amount: int = 0) -> bytes:
    """The target of the channel's next payment; 0: of its newest again."""
    payment = payer.sender.pay(amount) if amount else payer.newest
    payer.newest = payment
    SENT.append(payment.encode())
    return payer.sender.channel_target(payment).encode()


def put(target: bytes, extra: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"PUT %s HTTP/%s\r\nHost: h\r\n%s\r\n" % (target, version, extra)


def item(payer: Payer) -> bytes:
    raw = payer.newest.serialize()
    return payer.sender.terms.outpoint + bytes((len(raw),)) + raw


# --- keeping a connection, and ending it ---


def test_a_connection_is_kept_and_answers_come_in_order(port, payer):
    with Wire(port) as wire:
        for amount in range(1, 20):
            wire.send(put(target_of(payer, amount)))
            answer = wire.answer()
            assert (answer.status, answer.json["value_received"], answer.version) == (200, amount, "HTTP/1.1")
            assert "connection" not in answer.headers and CORS.items() <= answer.headers.items()


@pytest.mark.parametrize("end", ["open", "half-closed"])
def test_two_hundred_pipelined_requests_are_answered_in_order(port, payer, end):
    """Payments, replays, refusals and resources mixed, in one piece; then perhaps the client's end."""
    requests, expected = [], []
    for number in range(200):
        match number % 4:
            case 0:
                requests.append(put(target_of(payer, number + 1)))
                expected.append((200, number + 1))
            case 1:
                requests.append(put(target_of(payer)))
                expected.append((200, 0))
            case 2:
                requests.append(HEALTHZ)
                expected.append((200, None))
            case _:
                requests.append(put(b"/v1/channels/%d/0?payment=x" % number))
                expected.append((400, None))
    assert len(requests) > PIPELINED_MAX
    with Wire(port) as wire:
        wire.send(b"".join(requests))
        if end == "half-closed":
            wire.socket.shutdown(socket.SHUT_WR)
        answers = [wire.answer() for _ in requests]
        if end == "half-closed":
            assert wire.rest() == b""
    assert [(answer.status, answer.json.get("value_received")) for answer in answers] == expected


def test_a_request_split_at_every_byte(port, payer):
    """On one connection; tests/unit/fast/test_fast_direct.py splits at each place without the kernel in between."""
    with Wire(port) as wire:
        for amount in (0, 5):
            request = put(target_of(payer, amount), b"Content-Length: 0\r\n")
            for byte in request:
                wire.send(bytes((byte,)))
            assert wire.answer().json["value_received"] == amount
        for cut in range(1, len(request), 5):
            wire.send(request[:cut])
            time.sleep(0.001)
            wire.send(request[cut:])
            assert wire.answer().status == 200, cut


@pytest.mark.parametrize(
    ("extra", "version"), [(b"Connection: close\r\n", b"1.1"), (b"Connection: x, Close\r\n", b"1.1"), (b"", b"1.0")]
)
def test_the_client_may_ask_for_the_end(port, payer, extra, version):
    with Wire(port) as wire:
        wire.send(put(target_of(payer, 3), extra, version) + HEALTHZ)
        answer = wire.answer()
        assert (answer.status, answer.json["value_received"]) == (200, 3)
        assert (answer.headers["connection"], answer.version) == ("close", "HTTP/1.1")
        assert wire.rest() == b""


def test_http_1_0_without_a_host(port, payer):
    with Wire(port) as wire:
        wire.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert (wire.answer().json, wire.rest()) == ({"alive": True}, b"")


def test_head_has_the_headers_of_its_answer_and_no_body(port):
    with Wire(port) as wire:
        wire.send(b"HEAD /healthz HTTP/1.1\r\nHost: h\r\n\r\n" + HEALTHZ)
        head, answer = wire.answer(has_body=False), wire.answer()
        assert (head.status, answer.status) == (200, 200)
        assert head.headers["content-length"] == answer.headers["content-length"]
        assert answer.json == {"alive": True}


def test_a_body_on_a_payment_is_refused_and_ends_the_connection(port, payer):
    with Wire(port) as wire:
        wire.send(put(target_of(payer), b"Content-Length: %d\r\n" % len(HEALTHZ)) + HEALTHZ + HEALTHZ)
        answer = wire.answer()
        assert (answer.status, answer.code, wire.rest()) == (400, "body_not_allowed", b"")


def test_a_batch_whose_client_waits_for_leave(port, payer):
    """Its body looks like a request, and is none."""
    target_of(payer)
    body = item(payer)
    head = b"POST /v1/payments HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    with Wire(port) as wire:
        wire.send(HEALTHZ + head % len(body))
        assert wire.answer().json == {"alive": True}
        go_on = wire.answer()
        assert (go_on.status, go_on.headers) == (100, {})
        wire.send(body)
        answer = wire.answer()
        assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream")
        assert int.from_bytes(answer.body[:2], "little") == 200
        wire.send(head % len(HEALTHZ) + HEALTHZ + HEALTHZ)
        refusal = wire.answer()
        while refusal.status == 100:  # it may have been read before its body
            refusal = wire.answer()
        assert (refusal.status, refusal.code) == (400, "invalid_batch")
        assert wire.answer().json == {"alive": True}


PATHS = [
    "/%76%31/channels/{txid}/{vout}",
    "/v1/channels/{txid}/%3{vout}",
    "/v1/channels/{TXID}/{vout}",
    "/v1/channels/{txid}/{vout}/x",
    "/v1/channels/{txid}%2f{vout}",
    "/v1/channels/{txid}/{vout}%00",
    "/v1/channels/{txid}/{vout}%ff",
    "/v1/channels/%zz/{vout}",
    "/v1/channels/{txid}/{vout}%3fpayment=x",
    "/v1/channels/%C3%A9/{vout}",
    "/v1/%2e%2e/channels/{txid}/{vout}",
    "/v1/../v1/channels/{txid}/{vout}",
    "//v1/channels/{txid}/{vout}",
    "/v1/channels/{txid}/%",
    "/%",
    "/",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["PUT", "DELETE", "GET", "POST", "OPTIONS"])
def test_escaped_paths_are_answered_as_on_the_shared_port(system, port, payer, method, path):
    txid, vout = payer.sender.channel_target(payer.newest).split("?")[0].split("/")[3:]
    older = sign_payment(payer.sender.terms, payer.sender.change_value + 1, payer.sender.key).encode()
    target = path.format(txid=txid, TXID=txid.upper(), vout=vout) + f"?payment={older}"
    SENT.append(older)
    ours, shared = ask(port, method, target), ask(system.port, method, target)
    assert (ours.status, ours.body) == (shared.status, shared.body)
    different = {"date", "server", "connection"}
    assert {n: v for n, v in ours.headers.items() if n not in different} == {
        n: v for n, v in shared.headers.items() if n not in different
    }


# --- refusals ---


def long_head(size: int) -> bytes:
    return b"GET /healthz HTTP/1.1\r\nHost: h\r\nX: " + b"a" * size + b"\r\n\r\n"


REFUSALS = [
    (b"GET healthz HTTP/1.1\r\nHost: h\r\n\r\n", 400, "malformed_request"),
    (b"GET /healthz\r\n\r\n", 400, "malformed_request"),
    (b"\r\n" + HEALTHZ, 400, "malformed_request"),
    (b"\x16\x03\x01", 400, "malformed_request"),
    (b"GET  /healthz HTTP/1.1\r\nHost: h\r\n\r\n", 400, "malformed_request"),
    (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "malformed_request"),
    (b"GET /healthz HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400, "malformed_request"),
    (b"GET /healthz HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "malformed_request"),
    (b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: a b\r\n\r\n", 400, "malformed_request"),
    (b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", 400, "body_not_allowed"),
    (b"POST /v1/payments HTTP/1.1\r\nHost: h\r\nContent-Length: 120833\r\n\r\n", 413, "body_too_large"),
    (b"GET /" + b"a" * TARGET_SIZE_MAX + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414, "target_too_long"),
    (b"GET /healthz HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\n\r\n", 417, "unknown_expectation"),
    (long_head(HEAD_SIZE_MAX), 431, "head_too_large"),
    (b"GET /healthz HTTP/1.1\r\nHost: h\r\n" + b"X: a\r\n" * HEADERS_MAX + b"\r\n", 431, "head_too_large"),
    (b"GET /healthz HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n", 501, "transfer_encoding"),
    (b"GET /healthz HTTP/2.0\r\nHost: h\r\n\r\n", 505, "http_version"),
]

CHUNKED = b"0\r\n\r\n"
SMUGGLERS = [
    (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", CHUNKED, 501),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", CHUNKED, 501),
    (b"Transfer-Encoding: xchunked\r\n", CHUNKED, 501),
    (b"Transfer-Encoding:\tchunked\r\n", CHUNKED, 501),
    (b"Transfer-Encoding: chunked, identity\r\n", CHUNKED, 501),
    (b"Transfer-Encoding:\r\n chunked\r\n", CHUNKED, 501),
    (b"Transfer-Encoding : chunked\r\n", CHUNKED, 400),
    (b" Transfer-Encoding: chunked\r\n", CHUNKED, 400),
    (b"X: a\r\n Transfer-Encoding: chunked\r\n", CHUNKED, 400),
    (b"X: a\nTransfer-Encoding: chunked\r\n", CHUNKED, 400),
    (b"X: a\rTransfer-Encoding: chunked\r\n", CHUNKED, 400),
    (b"Transfer-Encoding\x0b: chunked\r\n", CHUNKED, 400),
    (b"Transfer-Encoding: \x0bchunked\r\n", CHUNKED, 400),
    (b"Transfer-Encoding\x00: chunked\r\n", CHUNKED, 400),
    (b"Content-Length: 5\r\n", b"hello", 400),
    (b"Content-Length: 0\r\nContent-Length: 5\r\n", b"hello", 400),
    (b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello", 400),
    (b"Content-Length: 5, 5\r\n", b"hello", 400),
    (b"Content-Length: +5\r\n", b"hello", 400),
    (b"Content-Length: 05\r\n", b"hello", 400),
    (b"Content-Length: 0x5\r\n", b"hello", 400),
    (b"Content-Length: 5 \t5\r\n", b"hello", 400),
    (b"Content-Length: -0\r\n", b"", 400),
    (b"Content-Length:\r\n", b"", 400),
    (b"Content-Length : 0\r\n", b"", 400),
    (b"Content-Length: 18446744073709551621\r\n", b"hello", 413),
    (b"X: a\r\n\nContent-Length: 5\r\n", b"hello", 400),
]


def check_refused(wire: Wire, status: int, code: str = "") -> None:
    """One problem document, the connection's end, and nothing after it."""
    answer = wire.answer()
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["connection"] == "close"
    assert CORS.items() <= answer.headers.items()
    assert answer.json["status"] == status and answer.json["detail"]
    assert answer.code == (code or answer.code) != ""
    assert wire.rest() == b""


@pytest.mark.parametrize(("raw", "status", "code"), REFUSALS, ids=[f"{row[0][:40]!r} {row[2]}" for row in REFUSALS])
def test_what_is_no_http_gets_a_problem_document_and_the_end(port, raw, status, code):
    with Wire(port) as wire:
        wire.send(HEALTHZ + raw)
        assert wire.answer().json == {"alive": True}
        check_refused(wire, status, code)


@pytest.mark.parametrize("method", ["PUT", "GET", "POST"])
@pytest.mark.parametrize(("headers", "body", "status"), SMUGGLERS, ids=[repr(row[0]) for row in SMUGGLERS])
def test_nothing_is_smuggled(port, payer, method, headers, body, status):
    """The smuggled request would pay; the next one on a new connection shows that it did not."""
    before = payer.sender.change_value
    smuggled = put(payer.sender.channel_target(sign_payment(payer.sender.terms, before - 9, payer.sender.key)).encode())
    target = target_of(payer) if method == "PUT" else b"/v1/payments" if method == "POST" else b"/healthz"
    with Wire(port) as wire:
        wire.send(method.encode() + b" " + target + b" HTTP/1.1\r\nHost: h\r\n" + headers + b"\r\n" + body + smuggled)
        if method == "POST" and headers == b"Content-Length: 5\r\n":  # a body is allowed here: it is read as one, and is no batch
            assert wire.answer().code == "invalid_batch"
            assert wire.answer().json["value_received"] == 9
            payer.newest = payer.sender.pay(9)
        else:
            check_refused(wire, status)
    answer = payer.resend()
    assert (answer.status, answer.json["value_received"]) == (200, 0)
    assert answer.json["channel_value_left"] == payer.sender.change_value


# --- patience, places, memory ---


def test_a_slow_request_is_told_so_and_an_idle_connection_ends(hasty):
    port = hasty.asked_port
    for begun in (b"GET /healthz HTTP/1.1\r\nHost:", b"POST /v1/payments HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"):
        with Wire(port) as wire:
            wire.send(HEALTHZ + begun)
            assert wire.answer().status == 200
            check_refused(wire, 408, "request_timeout")
    with Wire(port) as wire:
        wire.send(HEALTHZ)
        assert wire.answer().status == 200
        assert wire.rest() == b""


def test_a_dripping_request_is_slow_too(hasty):
    with Wire(hasty.asked_port) as wire, suppress(OSError):
        for _ in range(2000):
            wire.send(b"a" if _ else b"GET /")
            time.sleep(0.01)
            wire.socket.settimeout(0.001)
            with suppress(TimeoutError):
                if wire._receive():
                    break
        wire.socket.settimeout(SECONDS_MAX)
        check_refused(wire, 408, "request_timeout")


def test_connections_beyond_the_limit_are_closed_and_the_others_served(hasty):
    port = hasty.asked_port
    wires: list[Wire] = []
    try:
        served = 0
        for _ in range(CONNECTIONS_MAX + 4):
            wires.append(Wire(port))
        for wire in wires:
            with suppress(BrokenPipeError, ConnectionResetError):
                wire.send(HEALTHZ)
        served = sum(wire.answer().status == 200 for wire in wires)
        assert 1 <= served <= CONNECTIONS_MAX
    finally:
        for wire in wires:
            wire.socket.close()

    def is_served() -> bool:
        with Wire(port) as wire, suppress(BrokenPipeError, ConnectionResetError):
            wire.send(HEALTHZ)
            return wire.answer().status == 200
        return False

    wait_until(is_served, 5, "a place for a new connection")


@pytest.mark.parametrize("kind", ["replays", "resources", "refusals"])
def test_who_floods_and_takes_no_answers_costs_little_memory(system, port, payer, kind):
    request = {
        "replays": put(target_of(payer)),
        "resources": HEALTHZ,
        "refusals": put(b"/v1/channels/x/0?payment=x"),
    }[kind]
    pid = system.worker_pids()[0]
    before, flood, sent = resident_bytes(pid), request * (1 + (1 << 20) // len(request)), 0
    at_most = 24 << 20
    with Wire(port) as wire:
        wire.socket.settimeout(1.0)
        with suppress(TimeoutError):
            while sent < 4 * at_most:
                sent += wire.socket.send(flood[sent % len(request) :])
        assert sent < 4 * at_most, "all of it was read"
        assert resident_bytes(pid) - before < at_most
        # And it is served once it reads.
        wire.socket.settimeout(SECONDS_MAX)
        for _ in range(1000):
            assert wire.answer().status in (200, 400)
    with Wire(port) as wire:
        wire.send(HEALTHZ)
        assert wire.answer().status == 200


# --- a payment on its way ---


def test_a_connection_that_ends_while_its_payment_is_written_costs_nobody_anything(system, port):
    """The store is held, so that the payment is judged and not written when its payer goes away."""
    payer = system.payer("goes away")
    assert payer.open().status == 201
    store = system.child_pid("store")
    for way in ("close", "reset"):
        os.kill(store, signal.SIGSTOP)
        try:
            with Wire(port) as wire:
                wire.send(put(target_of(payer, 7)) + put(target_of(payer, 5)))
                time.sleep(0.3)
                if way == "reset":
                    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            time.sleep(0.1)
        finally:
            os.kill(store, signal.SIGCONT)

        def replay() -> RawAnswer:
            return ask(port, "PUT", payer.sender.channel_target(payer.newest))

        wait_until(lambda: replay().status == 200, 10, "the store's return")
        answer = replay()
        assert (answer.json["value_received"], answer.json["channel_value_left"]) == (0, payer.sender.change_value)
    closed = payer.close()
    assert (closed.status, closed.json["channel_value_left"]) == (202, payer.sender.change_value)


# --- the logs ---


def test_no_payment_is_in_any_log(system, port, payer, hasty):
    """Nor is anything else that clients sent."""
    ask(port, "PUT", "/v1/channels/canary/0?payment=canary-canary-canary")
    SENT.append("canary")
    assert len(SENT) > 200
    for one in (system, hasty):
        log = "".join(one.output)
        assert "listens on port" in log
        assert not [payment for payment in SENT if payment[:20] in log]
        for word in ("Traceback", "internal error", "ERROR"):
            assert word not in log
    for file in (path for path in system.state_dir.rglob("*log*") if path.is_file() and "store" not in str(path)):
        content = file.read_text(errors="replace")
        assert not [payment for payment in SENT if payment[:20] in content], file


def test_own_ports_are_the_workers(tmp_path):
    with running(tmp_path, workers=2) as system:
        first, second = system.own_ports()
        assert len({first, second, system.port}) == 3
        assert json.loads(ask(first, "GET", "/readyz").body)["workers"] == 2
        killed = system.kill("worker")
        wait_until(lambda: killed not in system.worker_pids() and system.ready_workers() == 2, 20, "a new worker")
        assert len(set(system.own_ports())) == 2
        assert isinstance(system, System)
