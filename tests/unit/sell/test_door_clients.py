"""Aim: what a door client says was answered was answered to that; whatever else happens is unknown. Method: both clients against a
door made by hand, which answers late, wrongly, in pieces, or not at all."""

import asyncio
import json
import socket
import threading
from contextlib import contextmanager

import pytest

from paychan.core.errors import ConfigError
from paychan.sell import door as async_door
from paychan.sell import wire
from paychan.sell.blocking import BlockingDoor
from paychan.sell.door import AsyncDoor
from paychan.sell.steps import UNSENT
from paychan.sell.wire import Door, find_door

ANSWER = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"


def answer(content, status=200):
    body = json.dumps(content).encode()
    return ANSWER % (status, len(body), body)


def each(request):
    """Answer each sale by itself."""
    _, _, body = request.partition(b"\r\n\r\n")
    return answer([{"status": 200, "told": sale} for sale in json.loads(body)])


@contextmanager
def standing_in(tmp_path_factory, respond):
    """A door by hand. respond(request): bytes, a list of them with pauses between, or None to hang up."""
    path = str(tmp_path_factory.mktemp("d") / "s")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    requests = []

    def serve(connection):
        data = b""
        while True:
            try:
                piece = connection.recv(1 << 16)
            except OSError:
                return
            if not piece:
                return
            data += piece
            while b"\r\n\r\n" in data:
                head, _, rest = data.partition(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                if len(rest) < size:
                    break
                request, data = head + b"\r\n\r\n" + rest[:size], rest[size:]
                requests.append(request)
                told = respond(request)
                if told is None:
                    connection.close()
                    return
                for part in told if isinstance(told, list) else [told]:
                    connection.sendall(part)

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield Door("pct_token", socket=path), requests
    finally:
        listener.close()


def asked_of_both(door, sales, call=None):
    """Return what both clients say: to sales, or to another request."""

    async def later():
        client = AsyncDoor(door)
        try:
            return await (client.call(*call) if call else client.ask(sales))
        finally:
            client.close()

    client = BlockingDoor(door)
    try:
        return [asyncio.run(later()), client.call(*call) if call else client.ask(sales)]
    finally:
        client.close()


SALES = ({"do": "charge", "amount": 1}, {"do": "charge", "amount": 2})


def test_each_sale_gets_its_own_answer(tmp_path_factory):
    with standing_in(tmp_path_factory, each) as (door, requests):
        for told in asked_of_both(door, SALES):
            assert [row.content["told"]["amount"] for row in told] == [1, 2] and {row.status for row in told} == {200}
    assert all(b"Authorization: Bearer pct_token\r\n" in request for request in requests)


def test_an_answer_in_pieces(tmp_path_factory):
    def in_pieces(request):
        whole = each(request)
        return [whole[at : at + 7] for at in range(0, len(whole), 7)]

    with standing_in(tmp_path_factory, in_pieces) as (door, _):
        assert all(len(told) == 2 for told in asked_of_both(door, SALES))


ODD = {
    "no HTTP": b"SSH-2.0-x\r\n\r\n",
    "no length": b"HTTP/1.1 200 OK\r\n\r\n{}",
    "a length that is none": b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
    "no JSON": ANSWER % (200, 2, b"{{"),
    "one answer for two": answer([{"status": 200}]),
    "no list": answer({"status": 200}),
    "nothing, and the end": None,
}


@pytest.mark.parametrize("told", ODD.values(), ids=ODD)
def test_what_makes_no_sense_is_unknown(tmp_path_factory, told):
    with standing_in(tmp_path_factory, lambda _: told) as (door, _):
        assert asked_of_both(door, SALES) == [None, None]


def test_a_refusal_of_all_is_each_ones(tmp_path_factory):
    with standing_in(tmp_path_factory, lambda _: answer({"status": 401, "code": "token_unknown"}, 401)) as (door, _):
        for told in asked_of_both(door, SALES):
            assert [(row.status, row.code) for row in told] == [(401, "token_unknown")] * 2


def test_other_requests(tmp_path_factory):
    with standing_in(tmp_path_factory, lambda _: answer({"code": "no_such_channel"}, 404)) as (door, requests):
        for told in asked_of_both(door, (), ("GET", "/v1/sell/channels/x/0")):
            assert (told.status, told.code, told.is_unknown) == (404, "no_such_channel", False)
        assert requests[0].startswith(b"GET /v1/sell/channels/x/0 HTTP/1.1\r\n")


def test_silence_is_unknown(tmp_path_factory, monkeypatch):
    for module in (async_door, wire, __import__("paychan.sell.blocking", fromlist=["x"])):
        for name in ("ANSWER_SECONDS", "SLOW_SECONDS"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, 0.2)
    with standing_in(tmp_path_factory, lambda _: b"") as (door, _):
        assert asked_of_both(door, SALES) == [None, None]
        assert asked_of_both(door, (), ("GET", "/")) == [None, None]


def test_with_nobody_there_a_sale_is_known_to_be_unsent(tmp_path):
    door = Door("t", socket=str(tmp_path / "nobody"))
    for told in asked_of_both(door, SALES):
        assert len(told) == len(SALES) and all(one is UNSENT for one in told)
    assert asked_of_both(door, (), ("GET", "/")) == [None, None]


def test_who_comes_at_once_shares_a_request_and_gets_its_own_answer(tmp_path_factory):
    with standing_in(tmp_path_factory, each) as (door, requests):

        async def many():
            client = AsyncDoor(door)
            told = await asyncio.gather(*(client.ask(({"do": "charge", "amount": number},)) for number in range(1000)))
            client.close()
            return told

        told = asyncio.run(many())
    assert [rows[0].content["told"]["amount"] for rows in told] == list(range(1000))
    assert len(requests) < 20


def plainly(request):
    """Answer each charge as the real door does: its amount is the number, and what the channel received."""
    _, _, body = request.partition(b"\r\n\r\n")
    return answer_raw([sold(sale["amount"]) for sale in json.loads(body)])


def sold(number):
    bought = {"number": number, "asked": 1, "amount": 1, "until": 0}
    amounts = {"value_received": 1, "received": number, "spent": 5, "credit": 0, "channel_value_left": 9}
    return {"status": 200, "repeated": False, "purchase": bought, **amounts}


def answer_raw(rows):
    body = json.dumps(rows, separators=(",", ":")).encode() + b"\n"
    return ANSWER % (200, len(body), body)


async def charged(client, numbers):
    futures = [client.charge(b'{"do":"charge","amount":%d}' % number) for number in numbers]
    return await asyncio.wait_for(asyncio.gather(*futures), 3 * async_door.ANSWER_SECONDS)


def test_charges_that_share_a_list_get_each_its_own_answer(tmp_path_factory):
    with standing_in(tmp_path_factory, plainly) as (door, requests):

        async def many():
            client = AsyncDoor(door)
            told = [await charged(client, range(400)), await client.ask(SALES)]
            client.close()
            return told

        told, others = asyncio.run(many())
    assert told == [(number, number, 5, 9) for number in range(400)] and [row.content["received"] for row in others] == [1, 2]
    assert len(requests) < 20


def test_charges_that_are_held_back_while_the_connection_ends_were_never_sent(tmp_path_factory, monkeypatch):
    with standing_in(tmp_path_factory, plainly) as (door, requests):

        async def held():
            client = AsyncDoor(door)
            await charged(client, [1])

            async def let_grow(size, last):
                monkeypatch.undo()
                door.socket += ".gone"
                client.close()

            monkeypatch.setattr(async_door, "let_grow", let_grow)
            return await charged(client, [2, 3])

        assert asyncio.run(held()) == [UNSENT, UNSENT]
    assert len(requests) == 1


def test_after_an_end_all_goes_on(tmp_path_factory):
    times = []

    def now_and_then(request):
        times.append(1)
        return None if len(times) % 2 else each(request)

    with standing_in(tmp_path_factory, now_and_then) as (door, _):

        async def twice():
            client = AsyncDoor(door)
            told = [await client.ask(SALES) for _ in range(4)]
            client.close()
            return told

        assert [told is None for told in asyncio.run(twice())] == [True, False, True, False]
        client = BlockingDoor(door)  # it tries a connection that was good once more
        assert [client.ask(SALES) is None for _ in range(3)] == [True, False, False]
        client.close()


def test_what_is_wrong_is_said_when_nobody_answers(tmp_path):
    """And a till that was made before its server sells as soon as that is there; this is for who reads its log."""
    path = tmp_path / "sell.sock"
    door = find_door(str(path), "")
    assert door.explain().startswith(f"{path} is not there: is the server running")
    path.touch()
    assert door.explain() == f"nobody answers at {path}: is the server running?"
    assert find_door("http://127.0.0.1:9", "t").explain().startswith("nobody answers at http://127.0.0.1:9: ")


def test_where_a_door_is(tmp_path):
    cookie = tmp_path / "sell.cookie"
    door = find_door(f"unix:{tmp_path}/sell.sock", "")
    with pytest.raises(FileNotFoundError):
        door.approach()
    for token in ("pct_abc", "pct_def"):  # the second: the server's state was removed meanwhile
        cookie.write_text(f"{token}\n")
        door.approach()
        assert door == Door(token, socket=str(tmp_path / "sell.sock"), has_cookie=True)
    given = find_door(str(tmp_path / "sell.sock"), "pct_x")
    given.approach()
    assert given.token == "pct_x"
    assert find_door("https://192.0.2.7:8443", "pct_x", "ca.pem").server.port == 8443
    for at, token in (("https://192.0.2.7:8443", ""), ("https://", "x"), (str(tmp_path / "sell.sock"), "a\nb")):
        with pytest.raises(ConfigError) as caught:
            find_door(at, token)
        assert "a\nb" not in str(caught.value)
    assert Door("a").secret != Door("b").secret and len(Door("a").secret) == 32
