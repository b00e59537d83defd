"""Aim: what is paid while it runs is paid before it is sent, waits when it is not, and costs what was sent. Method: a real paychan
server, the gateway and an upstream as processes; events and messages are counted on the client's side of the wire."""

import json
import re
import socket
import time

import pytest

from paychan.mpp.receipt import parse_receipt
from tests.buyer import OPEN_PRICE
from tests.gateways import frame, handshake, read_all, running_gateway, running_upstream
from tests.process.test_gateway_sells import challenge_of, get, new_buyer, request_raw
from tests.selling import Seller, make_token, with_door
from tests.system import wait_until

AHEAD = 5
ROUTES = {
    "/events/*": f"price_per_event = 2\nreserve = {AHEAD}",
    "/big/*": "price_per_kilobyte = 3\nreserve = 10",
    "/status/*": "price_per_event = 2\nreserve = 5",
    "/echo/*": "price_per_event = 2\nreserve = 5\nwebsocket = true",
    "/log/*": "price_per_second = 4\nreserve = 2",
    "/free/*": "free = true",
}


@pytest.fixture(scope="module")
def upstream():
    with running_upstream() as process:
        yield process


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with with_door(tmp_path_factory.mktemp("paychan")) as made:
        yield made


def config(system, upstream, gateway=""):
    socket_path = (system.state_dir / "run" / "sell.sock").absolute()
    text = f'[gateway]\nport = PORT\nrealm = "shop"\n{gateway}\n[seller]\nsocket = "{socket_path}"\n'
    text += f'[upstreams.api]\nurl = "http://127.0.0.1:{upstream.port}"\n'
    return text + "".join(f'[[routes]]\npath = "{path}"\n{lines}\n' for path, lines in ROUTES.items())


@pytest.fixture(scope="module")
def gateway(system, upstream, tmp_path_factory):
    with running_gateway(tmp_path_factory.mktemp("gateway"), config(system, upstream)) as process:
        yield process


@pytest.fixture(scope="module")
def seller(system):
    return Seller(system, make_token(system, "looker"))


@pytest.fixture
def make_buyer(system, gateway, request):
    def make(target, at=gateway):
        return new_buyer(system, at, f"{request.node.name} {target}", target)

    return make


def started(gateway, target, headers, until):
    """Begin a stream; return its connection, and what came until `until` was in it."""
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=20)
    lines = [f"GET {target} HTTP/1.1", "Host: h", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    connection.sendall("\r\n".join(lines).encode())
    return connection, receive(connection, until)


def receive(connection, until, got=b"", seconds=30):
    """Return what comes up to the piece that has `until` in it."""
    deadline = time.monotonic() + seconds
    while until not in got:
        try:
            piece = connection.recv(65536)
        except TimeoutError:
            piece = b""
        assert piece and time.monotonic() < deadline, got[-2000:]
        got += piece
    return got


def events(raw):
    return [int(number) for number in re.findall(rb"data: event (\d+)", raw)]


def look(seller, buyer):
    return seller.look(buyer.channel)


def test_a_stream_costs_its_events_and_ends_with_a_receipt(gateway, make_buyer, seller):
    buyer = make_buyer("/events/3")
    raw = request_raw(gateway, "/events/3", buyer.open(OPEN_PRICE + 2 * AHEAD))
    assert raw.startswith(b"HTTP/1.1 200") and events(raw) == [1, 2, 3] and raw.endswith(b"0\r\n\r\n")
    content = json.loads(re.search(rb"event: payment-receipt\ndata: (\{.*\})", raw)[1])
    assert (content["spent"], content["units"]) == (str(OPEN_PRICE + 6), 3)
    assert look(seller, buyer)["spent"] == OPEN_PRICE + 6 and look(seller, buyer)["credit"] == 4


def test_a_stream_waits_for_the_next_payment_and_goes_on(gateway, make_buyer, seller):
    buyer = make_buyer("/events/0")
    connection, raw = started(gateway, "/events/0", buyer.open(OPEN_PRICE + 2 * AHEAD), b"payment-need-voucher")
    with connection:
        assert events(raw) == [1, 2, 3, 4, 5] and look(seller, buyer)["credit"] == 0
        raw = receive(connection, b"\n\n", raw.partition(b"payment-need-voucher")[2])
        asked = json.loads(re.search(rb"data: (\{.*\})", raw)[1])
        assert int(asked["requiredCumulative"]) == buyer.cumulative + 2 * AHEAD
        assert get(gateway, "/free/x", buyer.pay(2 * AHEAD), "HEAD").status == 204
        assert events(receive(connection, b"payment-need-voucher", raw[raw.rindex(b"\n\n") :])) == [6, 7, 8, 9, 10]
    assert look(seller, buyer)["spent"] == OPEN_PRICE + 20


def test_who_goes_away_gets_back_what_was_not_sent(gateway, make_buyer, seller):
    buyer = make_buyer("/events/0")
    slowly = {**buyer.open(OPEN_PRICE + 2 * AHEAD), "X-Pause": "1"}
    connection, raw = started(gateway, "/events/0", slowly, b"event 2\n")
    connection.close()
    wait_until(lambda: look(seller, buyer)["spent"] < OPEN_PRICE + 2 * AHEAD, 10, "giving back")
    assert look(seller, buyer)["spent"] >= OPEN_PRICE + 4


def test_when_the_channel_ends_so_does_the_stream_and_says_so(gateway, make_buyer):
    buyer = make_buyer("/events/0")
    connection, raw = started(gateway, "/events/0", buyer.open(OPEN_PRICE + 2 * AHEAD), b"payment-need-voucher")
    with connection:
        assert get(gateway, "/events/1", buyer.close(), "POST").status == 204
        raw += read_to_end(connection)
    assert b"event: payment-error" in raw and b"channel-finalized" in raw and events(raw) == [1, 2, 3, 4, 5]


def read_to_end(connection):
    got = b""
    while not got.endswith(b"0\r\n\r\n"):
        piece = connection.recv(65536)
        if not piece:
            break
        got += piece
    return got


def test_a_stream_that_the_operator_stops_costs_what_was_sent(system, upstream, make_buyer, seller, tmp_path):
    with running_gateway(tmp_path, config(system, upstream, "stop_seconds = 2")) as gateway:
        buyer = make_buyer("/events/0", gateway)
        connection, raw = started(gateway, "/events/0", buyer.open(OPEN_PRICE + 2 * AHEAD), b"event 1\n")
        with connection:
            for _ in range(50):
                get(gateway, "/free/x", buyer.pay(2 * AHEAD), "HEAD")
            assert gateway.stop() == 0
            raw += read_all(connection)
    sent = len(events(raw))
    assert sent > AHEAD and not raw.endswith(b"0\r\n\r\n")
    assert OPEN_PRICE + 2 * sent <= look(seller, buyer)["spent"] <= OPEN_PRICE + 2 * sent + 4


def test_an_answer_is_paid_by_the_kilobyte(gateway, make_buyer, seller):
    buyer = make_buyer("/big/2500")
    raw = request_raw(gateway, "/big/2500", buyer.open(OPEN_PRICE + 30))
    assert raw.endswith(b"b" * 2500) and parse_receipt(re.search(rb"payment-receipt: (\S+)", raw)[1].decode())
    wait_until(lambda: look(seller, buyer)["spent"] == OPEN_PRICE + 3 * 3, 10, "settling")
    buyer.challenge = new_challenge(gateway, "/big/x")
    connection, raw = started(gateway, "/big/25000", buyer.pay(30 - 21), b"b" * 9000)
    with connection:
        assert get(gateway, "/free/x", buyer.pay(60), "HEAD").status == 204
        assert receive(connection, b"b" * 25000, raw).endswith(b"b" * 25000)
    wait_until(lambda: look(seller, buyer)["spent"] == OPEN_PRICE + 9 + 75, 10, "settling")


def new_challenge(gateway, target):
    return challenge_of(get(gateway, target))


def test_what_was_not_to_be_charged_costs_nothing_at_all(gateway, make_buyer, seller):
    buyer = make_buyer("/status/404")
    assert get(gateway, "/status/404", buyer.open(OPEN_PRICE + 10)).status == 404
    assert look(seller, buyer)["spent"] == OPEN_PRICE and look(seller, buyer)["credit"] == 10
    assert get(gateway, "/status/204", buyer.again()).status == 204
    wait_until(lambda: look(seller, buyer)["spent"] == OPEN_PRICE, 10, "giving back")
    assert get(gateway, "/status/200", buyer.again()).status == 200
    wait_until(lambda: look(seller, buyer)["spent"] == OPEN_PRICE + 2, 10, "settling")


def test_events_of_a_refusal_cost_nothing_and_get_no_receipt(gateway, make_buyer, seller):
    buyer = make_buyer("/events/x")
    raw = request_raw(gateway, "/events/refused/3", buyer.open(OPEN_PRICE + 2 * AHEAD))
    assert raw.startswith(b"HTTP/1.1 404") and events(raw) == [1, 2, 3] and b"payment-receipt" not in raw
    assert look(seller, buyer)["spent"] == OPEN_PRICE


def test_a_stream_is_not_had_twice_for_one_payment(gateway, make_buyer, seller):
    buyer = make_buyer("/events/3")
    request_raw(gateway, "/events/3", buyer.open(OPEN_PRICE + 2 * AHEAD))
    again = get(gateway, "/events/3", buyer.again())
    assert (again.status, again.code) == (409, "already_served")


def test_a_websocket_is_paid_by_the_message(gateway, make_buyer, seller):
    buyer = make_buyer("/echo/many/12")
    connection, status = handshake(gateway, "/echo/many/12", f"Authorization: {buyer.open(OPEN_PRICE + 10)['Authorization']}")
    with connection:
        assert status == 101
        raw = receive(connection, b"payment-need-voucher")
        assert len(re.findall(rb"message \d", raw)) == 5
        assert get(gateway, "/free/x", buyer.pay(10), "HEAD").status == 204
        assert get(gateway, "/free/x", buyer.pay(10), "HEAD").status == 204
        raw = receive(connection, b"message 12")
        connection.sendall(frame(b"close"))
        assert connection.recv(100)[0] == 0x88
    wait_until(lambda: look(seller, buyer)["spent"] == OPEN_PRICE + 24, 10, "settling")
