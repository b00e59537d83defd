"""Aim: every event once or more, in order, whatever the receiver does and whoever else changes the endpoint.

Method: the deliveries of production against a receiver on a real socket that fails, hangs, breaks off, redirects and says odd
things; the store is a stand-in that keeps events and notes by the store's rule.
"""

import asyncio
import ipaddress
import json
import random
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from paychan.events.endpoint import PREFIX, Endpoint, make_secret
from paychan.events.event import Event, Type
from paychan.rpc.connection import ConnectionGone
from paychan.rpc.event_messages import Stream
from paychan.settings.models import WebhooksConfig
from paychan.webhooks import delivery
from paychan.webhooks.delivery import Deliverer, pause
from paychan.webhooks.signature import sign

SECRET = make_secret(bytes(32))
CONFIG = WebhooksConfig(allowed=(ipaddress.ip_network("127.0.0.0/8"),), answer_seconds=1)


class Store:
    """Events and notes, as the store keeps them. is_ours: whether deliveries are this process'."""

    def __init__(self):
        self.bodies, self.kept, self.is_ours, self.is_up = [], {}, True, True

    def tell(self, count, kind=Type.OPENED):
        for _ in range(count):
            self.bodies.append(Event(kind, {"place": len(self.bodies) + 1}, at=1).encode())

    async def events(self, after, limit):
        await asyncio.sleep(0)
        if not self.is_up:
            raise ConnectionGone()
        found = [(number, body) for number, body in enumerate(self.bodies, 1) if number > after][:limit]
        return Stream(1, len(self.bodies), self.is_ours, found)

    async def notes(self, prefix):
        await asyncio.sleep(0)
        return dict(self.kept)

    async def note(self, change):
        await asyncio.sleep(0)
        if not self.is_up:
            raise ConnectionGone()
        if self.kept.get(change.name) != change.expected:
            return False, self.kept.get(change.name)
        self.kept[change.name] = change.value
        for event in change.events:
            self.bodies.append(event.encode())
        return True, change.value

    def endpoint(self, name="ep_1"):
        return Endpoint.parse(self.kept[PREFIX + name])


class Receiver:
    """answers: what it does with each request in turn; then it takes everything."""

    def __init__(self):
        self.answers, self.got, self.port = [], [], 0

    async def serve(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
            body = await reader.readexactly(int(fields["Content-Length"]))
            assert fields["webhook-signature"] == sign(SECRET, fields["webhook-id"], int(fields["webhook-timestamp"]), body)
            answer = self.answers.pop(0) if self.answers else b"HTTP/1.1 204 No Content\r\n\r\n"
            self.got.append((json.loads(body)["id"], answer))
            if answer == "hang":
                await asyncio.sleep(30)
            writer.write(answer if isinstance(answer, bytes) else b"")
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def taken(self):
        return [number for number, answer in self.got if answer == b"HTTP/1.1 204 No Content\r\n\r\n"]


ODD = [
    *(b"HTTP/1.1 500 Oops\r\n\r\n", b"HTTP/1.1 301 Go\r\nLocation: http://169.254.169.254/\r\n\r\n", b"", b"\r\n"),
    *(b"HTTP/2 200\r\n\r\n", b"x" * 100_000 + b"\n", b"HTTP/1.1 99 x\r\n\r\n", b"HTTP/1.1 4", b"HTTP/1.1 abc\r\n"),
    *(b"SSH-2.0-x\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
]


@asynccontextmanager
async def told(monkeypatch, count=0, config=CONFIG, **endpoint):
    monkeypatch.setattr(delivery, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(delivery, "RETRY_SECONDS_MAX", 0.01)
    store, receiver = Store(), Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    row = Endpoint("ep_1", f"http://127.0.0.1:{receiver.port}/hook", SECRET, 0, **endpoint)
    store.kept[row.name] = row.encode()
    store.tell(count)
    deliverer = Deliverer(store, config)
    deliverer.start()
    try:
        yield store, receiver, deliverer
    finally:
        await deliverer.stop()
        server.close()


async def until(is_true, seconds=20):
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def run(steps):
    return asyncio.run(steps)


def test_all_are_told_in_order_and_the_cursor_follows(monkeypatch):
    async def steps():
        async with told(monkeypatch, 250) as (store, receiver, _):
            await until(lambda: store.endpoint().cursor == 250)
            assert receiver.taken() == list(range(1, 251))
            store.tell(1)
            await until(lambda: store.endpoint().cursor == 251)

    run(steps())


def test_whatever_the_receiver_answers_each_is_tried_until_it_is_taken_and_none_overtakes(monkeypatch):
    async def steps():
        async with told(monkeypatch, 4) as (store, receiver, deliverer):
            receiver.answers = random.Random(3).sample(ODD, len(ODD))
            await until(lambda: store.endpoint().cursor == 4)
            asked = [number for number, _ in receiver.got]
            assert asked == sorted(asked) and receiver.taken() == [1, 2, 3, 4]
            assert asked.count(1) == len(ODD) + 1
            shown = deliverer.attempts(PREFIX + "ep_1")
            assert [row.event for row in shown][:3] == [4, 3, 2] and shown[-1].why
            assert store.endpoint().failing_since_at == 0

    run(steps())


def test_one_that_hangs_is_behind_and_another_is_not(monkeypatch):
    async def steps():
        async with told(monkeypatch, 3) as (store, receiver, _):
            receiver.answers = ["hang"] * 100
            other = Receiver()
            server = await asyncio.start_server(other.serve, "127.0.0.1", 0)
            row = replace(store.endpoint(), id="ep_2", url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
            store.kept[row.name] = row.encode()
            await until(lambda: store.endpoint("ep_2").cursor == 3)
            await until(lambda: "no answer" in store.endpoint().why)
            assert store.endpoint().cursor == 0 and receiver.taken() == []
            server.close()

    run(steps())


def test_who_takes_nothing_for_days_is_given_up_and_said(monkeypatch):
    async def steps():
        async with told(monkeypatch, 2, replace(CONFIG, give_up_seconds=0)) as (store, receiver, _):
            receiver.answers = [ODD[0]] * 50
            await until(lambda: not store.endpoint().is_enabled)
            assert store.endpoint().cursor == 0 and len(receiver.got) == 1
            said = Event.parse(store.bodies[-1])
            assert said.type == Type.WEBHOOK_DISABLED and said.data["webhook"] == "ep_1"
            back = replace(store.endpoint(), is_enabled=True, failing_since_at=0)
            receiver.answers.clear()
            store.kept[back.name] = back.encode()
            await until(lambda: store.endpoint().cursor == 3)
            assert receiver.taken() == [1, 2, 3]

    run(steps())


def test_410_means_no_more(monkeypatch):
    async def steps():
        async with told(monkeypatch, 2) as (store, receiver, _):
            receiver.answers = [b"HTTP/1.1 410 Gone\r\n\r\n"]
            await until(lambda: not store.endpoint().is_enabled)
            assert len(receiver.got) == 1

    run(steps())


def test_who_sets_the_cursor_back_is_told_again(monkeypatch):
    async def steps():
        async with told(monkeypatch, 5) as (store, receiver, _):
            await until(lambda: store.endpoint().cursor == 5)
            back = replace(store.endpoint(), cursor=2)
            store.kept[back.name] = back.encode()
            await until(lambda: store.endpoint().cursor == 5 and len(receiver.got) == 8)
            assert receiver.taken() == [1, 2, 3, 4, 5, 3, 4, 5]

    run(steps())


def test_who_is_told_again_from_where_it_was_before_is_told(monkeypatch):
    """The note that an operator writes then may say what ours said a moment ago."""

    async def steps():
        monkeypatch.setattr(delivery, "SAVE_SECONDS", 0.0)
        async with told(monkeypatch, 3) as (store, receiver, _):
            await until(lambda: store.endpoint().cursor == 3)
            back = replace(store.endpoint(), cursor=1, revision=1)
            store.kept[back.name] = back.encode()
            await until(lambda: receiver.taken() == [1, 2, 3, 2, 3])

    run(steps())


def test_a_removed_endpoint_is_not_brought_back_by_a_look_that_began_before(monkeypatch):
    async def steps():
        async with told(monkeypatch, 2) as (store, receiver, deliverer):
            receiver.answers = [ODD[0]] * 1000
            await until(lambda: len(receiver.got) > 1)
            notes, has_read, goes_on = store.notes, asyncio.Event(), asyncio.Event()

            async def late(prefix):
                found = await notes(prefix)
                if has_read.is_set():
                    await asyncio.sleep(30)
                has_read.set()
                await goes_on.wait()
                return found

            store.notes = late
            await has_read.wait()
            store.kept.clear()
            await deliverer.forget(PREFIX + "ep_1")
            by_then = len(receiver.got)
            store.tell(1)
            goes_on.set()  # and the next look, which sees that it is gone, hangs
            await until(lambda: deliverer.newest == 3)
            await asyncio.sleep(0.3)
            assert len(receiver.got) == by_then and deliverer.attempts(PREFIX + "ep_1") == []

    run(steps())


def test_only_types_that_are_wanted(monkeypatch):
    async def steps():
        async with told(monkeypatch, 2, types=("channel.lost",)) as (store, receiver, _):
            store.tell(1, Type.LOST)
            store.tell(1)
            await until(lambda: store.endpoint().cursor == 4)
            assert receiver.taken() == [3]

    run(steps())


def test_a_process_that_dies_at_any_moment_and_a_store_that_goes_away_lose_nothing(monkeypatch):
    async def steps():
        chance = random.Random(7)
        async with told(monkeypatch, 40) as (store, receiver, first):
            receiver.answers = [chance.choice([ODD[0], b"", b"HTTP/1.1 204 No Content\r\n\r\n"]) for _ in range(60)]
            deliverer = first
            for _ in range(25):
                await asyncio.sleep(chance.uniform(0, 0.03))
                await deliverer.stop()  # cut off wherever it is, as by kill
                store.is_up = chance.random() < 0.7
                deliverer = Deliverer(store, CONFIG)
                deliverer.start()
            store.is_up = True
            await until(lambda: store.endpoint().cursor == 40)
            await deliverer.stop()
            taken = receiver.taken()
            firsts = list(dict.fromkeys(taken))
            assert firsts == list(range(1, 41))

    run(steps())


def test_two_processes_at_once_tell_twice_and_leave_none_out(monkeypatch):
    async def steps():
        async with told(monkeypatch, 60) as (store, receiver, _):
            second = Deliverer(store, CONFIG)
            second.start()
            await until(lambda: store.endpoint().cursor == 60)
            assert list(dict.fromkeys(receiver.taken())) == list(range(1, 61))
            await second.stop()

    run(steps())


def test_a_process_whose_store_does_not_deliver_tells_nothing(monkeypatch):
    async def steps():
        async with told(monkeypatch) as (store, receiver, deliverer):
            store.is_ours = False
            store.tell(3)
            await until(lambda: deliverer.newest == 3)
            await asyncio.sleep(0.1)
            assert receiver.got == []

    run(steps())


def test_an_endpoint_inside_is_not_asked(monkeypatch):
    async def steps():
        async with told(monkeypatch, 1, replace(CONFIG, allowed=())) as (store, receiver, _):
            await until(lambda: store.endpoint().attempts > 1)
            assert receiver.got == [] and store.endpoint().why == "points inside"

    run(steps())


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 1), (2, 2), (8, 128), (13, 3600), (10_000, 3600)])
def test_pauses_grow_up_to_an_hour(attempts, seconds):
    assert pause(attempts) == seconds
