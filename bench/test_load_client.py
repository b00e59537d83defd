"""Aim: the load client notices every wrong, missing or late answer. Method: a server that says what the test tells it to.

Also: what signs in bulk says the same as the payer's library, and the constant answer is as long as a real one.
"""

import array
import socket
import struct
import threading
import time
from contextlib import contextmanager

import pytest
from coincurve import PrivateKey

from bench.load.client import Client
from bench.load.constant import BODY, HEADERS
from bench.load.constant_direct import ANSWER
from bench.load.payers import Payer, batch_request
from bench.load.processes import Instance
from paychan.core.sender import sign_payment
from tests.system import running

BODY_OF = b'{"channel_status":"open","channel_value_left":%d,"value_received":%d,"settlement_txid":null}\n'
REQUEST = b"PUT /x HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
KEY = PrivateKey(b"\7" * 32).public_key.format()


def answer(left=9, received=1, status=200, head=b"content-length: %d\r\n"):
    body = BODY_OF % (left, received)
    return b"HTTP/1.1 %d X\r\n" % status + (head % len(body) if b"%" in head else head) + b"\r\n" + body


def asked(left=9, received=1, status=200):
    return REQUEST, False, [(status, left, received)]


@contextmanager
def server(*answers):
    """Accept one connection after the other; answer each request with bytes, after some seconds if it is (seconds, bytes), then
    close; None: close at once; an empty answer keeps it waiting."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        try:
            while True:
                connection, _ = listener.accept()
                with connection:
                    for each in answers:
                        if not connection.recv(65536) or each is None:
                            break
                        wait, data = each if isinstance(each, tuple) else (0, each)
                        time.sleep(wait)
                        connection.sendall(data)
                    if answers[-1] == b"":
                        connection.recv(1)
        except OSError:
            return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def run(answers, requests, **options):
    needle = options.pop("needle", b"")
    with server(*answers) as address:
        client = Client([address], needle)
        client.give(0, requests)
        return client.run(len(requests), **options)


def test_right_answers_are_counted_and_timed():
    outcome = run([answer(), (0.05, answer(8))], [asked(), asked(8)])
    assert (outcome["answers"], outcome["payments"], outcome["wrong"], outcome["missing"]) == (2, 2, 0, 0)
    assert outcome["complaint"] == ""
    first, second = array.array("Q", outcome["latencies"])
    assert first < 0.05e9 <= second
    assert outcome["seconds"] >= 0.05


def test_headers_in_any_case_and_a_body_in_pieces():
    outcome = run([answer(head=b"X: y\r\nCONTENT-Length:   %d\r\nZ: \r\n")], [asked()])
    assert outcome["wrong"] == 0
    assert outcome["answers"] == 1


@pytest.mark.parametrize(
    "wrong",
    [
        answer(status=404),
        answer(status=503),
        answer(received=2),
        answer(received=0),
        answer(left=10),
        answer(left=90),
        answer().replace(b"value_received", b"value_deceived"),
        answer().replace(b"HTTP/1.1", b"HTTQ/1.1"),
        answer(head=b""),
        answer(head=b"content-length: %d\r\ncontent-length: 0\r\n"),
        answer(head=b"content-length: x\r\n"),
        answer() + b"more",
    ],
)
def test_a_wrong_answer_is_counted(wrong):
    outcome = run([wrong, answer()], [asked(), asked()])
    assert outcome["wrong"] >= 1
    assert "expected status 200, left 9, received 1" in outcome["complaint"]


def test_a_needle_must_be_in_the_body():
    assert run([answer()], [asked()], needle=b"channel_status")["wrong"] == 0
    assert run([answer()], [asked()], needle=b"no_such_channel")["wrong"] == 1


@pytest.mark.parametrize("answers", [[None], [answer()[:-5]], [answer()[:20]]])
def test_a_closed_connection_is_a_missing_answer(answers):
    outcome = run(answers, [asked(), asked()])
    assert outcome["missing"] == 1
    assert outcome["answers"] == 0
    assert "closed" in outcome["complaint"]


def test_an_answer_that_never_comes_is_missing():
    outcome = run([b""], [asked()], patience=0.2)
    assert (outcome["answers"], outcome["missing"]) == (0, 1)


def test_a_run_goes_on_where_the_one_before_ended():
    with server(answer(9), answer(8), answer(7), answer(6)) as address:
        client = Client([address])
        client.give(0, [asked(9), asked(8), asked(7)])
        assert client.run(2)["answers"] == 2
        assert client.waiting(0) == 1
        client.give(0, [asked(6)])
        outcome = client.run(10)
        assert (outcome["answers"], outcome["wrong"]) == (2, 0)


def test_the_open_loop_counts_from_when_a_request_was_due():
    """One slow answer delays those behind it: they were due all the same."""
    requests = [asked()] * 20
    outcome = run([(0.2, answer())] + [answer()] * 19, requests, rate=100.0)
    latencies = array.array("Q", outcome["latencies"])
    assert (outcome["answers"], outcome["wrong"]) == (20, 0)
    assert sum(latency > 0.1e9 for latency in latencies) >= 8
    assert latencies[19] < latencies[0]
    assert outcome["seconds"] >= 0.19


def batch_answer(*rows):
    parts = [(status, BODY_OF % (left, received)) for status, left, received in rows]
    body = b"".join(struct.pack("<HH", status, len(part)) + part for status, part in parts)
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body


ROWS = [(200, 9, 1), (404, 5, 0), (200, 8, 1)]


def test_a_right_batch_counts_each_payment():
    outcome = run([batch_answer(*ROWS)], [batch_request([b"a", b"b", b"c"], ROWS)])
    assert (outcome["answers"], outcome["payments"], outcome["wrong"]) == (1, 3, 0)


@pytest.mark.parametrize("rows", [ROWS[:2], [*ROWS, ROWS[0]], [ROWS[1], ROWS[0], ROWS[2]], [*ROWS[:2], (200, 7, 1)], []])
def test_a_wrong_batch_is_noticed(rows):
    assert run([batch_answer(*rows)], [batch_request([b"a"], ROWS)])["wrong"] == 1


def test_a_payers_batch_is_outpoint_length_and_payment_each():
    payer = Payer("batch", 1, KEY)
    raw, is_batch, expected = payer.batch(2)
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/payments HTTP/1.1\r\n")
    assert b"\r\nContent-Length: %d" % len(body) in head
    first = payer.terms.funding_value - 1
    assert (is_batch, expected) == (True, [(200, first, 1), (200, first - 1, 1)])
    for value in (first, first - 1):
        size = body[36]
        assert (body[:36], body[37:45]) == (payer.terms.outpoint, value.to_bytes(8, "little"))
        body = body[37 + size :]
    assert body == b""


def test_a_large_request_is_sent_in_pieces():
    large = b"x" * 8_000_000
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            rest = len(large)
            while rest > 0:
                rest -= len(connection.recv(1 << 16))
            connection.sendall(answer())

        thread = threading.Thread(target=serve)
        thread.start()
        client = Client([listener.getsockname()])
        client.give(0, [(large, False, [(200, 9, 1)])])
        outcome = client.run(1)
        thread.join()
    assert (outcome["answers"], outcome["wrong"], outcome["missing"]) == (1, 0, 0)


def test_bulk_signing_says_what_the_payers_library_says():
    payer = Payer("same", 3, KEY)
    payments = payer.sign(3, 500)
    key = PrivateKey(payer.secret)
    assert key.public_key.format() == payer.terms.client_pubkey
    values = [payer.terms.funding_value - 500 - step for step in range(3)]
    assert payments == [sign_payment(payer.terms, value, key).serialize() for value in values]
    assert payer.left == values[-1]


def test_the_constant_answer_is_as_long_as_a_payments(tmp_path):
    """H is the price of the same answer."""
    with running(tmp_path) as system:
        payer = system.payer("constant")
        assert payer.open().status == 201
        paid = payer.pay(1)
    assert {name: paid.headers[name] for name, _ in HEADERS} == dict(HEADERS)
    assert set(paid.headers) - {name for name, _ in HEADERS} == {"server", "date", "content-length"}
    assert len(paid.body) == len(BODY)


def test_the_own_ports_constant_answer_is_as_long_as_a_payments(tmp_path):
    instance = Instance(tmp_path / "one")
    try:
        instance.start()
        payer = Payer("length", 0, instance.server_pubkey)
        (door,) = instance.open([payer])
        assert door != instance.door
        with socket.create_connection(door) as connection:
            connection.sendall(payer.pay(1)[0][0])
            assert len(connection.recv(4096)) == len(ANSWER)
    finally:
        instance.stop()
