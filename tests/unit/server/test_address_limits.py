"""Aim: what fails from one address costs others nothing: their payments and connections are taken. Method: the real intake and
doors on a table that has little time for failures; an address floods beside another one, and beside a payer that shares it."""

import asyncio
from types import SimpleNamespace

import pytest

from paychan._fast.channel import FAILURES_MAX
from paychan.core.addresses import Networks, number_of, read_address
from paychan.server.doors.direct import DirectPort
from paychan.server.limits import Limits
from paychan.server.protocol.replies import Reply
from paychan.settings.limits import LimitsConfig
from tests.reference import Paid
from tests.unit.doors import Desk, asynchronous, settle
from tests.unit.server.shards.test_committer import HandStore

FLOODER, HONEST = (number_of(read_address(text)) for text in ("192.0.2.66", "198.51.100.7"))
LITTLE = 1
"""Per mille of the time, for failures: so little is used up at once, and what passes while a test waits brings nothing."""

KINDS = ("future", "forwarded", "batch", "rsgi")
"""Of requests whose address the test sets."""


def make_desk(failing_per_mille=LITTLE, failures_per_minute=2):
    return Desk(HandStore(), failing_per_mille=failing_per_mille, limits=Limits(LimitsConfig(0, failures_per_minute)))


async def pay(desk, kind, address, raw, number=0):
    desk.address = address
    answer = desk.submit(kind, number, raw)
    await settle()
    if desk.store.in_flight:
        await desk.store.answer()
        await settle()
    assert answer.count == 1
    return answer


def junk(desk, number):
    """A payment of right form that nobody signed."""
    return Paid(8_000_000 - number, desk.samples[0].sign(8_500_000).signature, 0x83).raw


async def flood(desk, kind):
    """Send junk until an address is refused for it; return the codes that it was told."""
    told = []
    for number in range(60):
        told.append((await pay(desk, kind, FLOODER, junk(desk, number))).code)
        if told[-1] == "too_many_refused":
            return told
    raise AssertionError(told)


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_an_address_that_floods_keeps_no_other_out(kind):
    desk = make_desk()
    first = desk.samples[0].sign(9_000_000).raw
    assert (await pay(desk, kind, FLOODER, first)).status == 200
    told = await flood(desk, kind)
    assert set(told[:-1]) == {"bad_signature"}
    for number in range(10):
        assert (await pay(desk, kind, HONEST, desk.samples[0].sign(8_900_000 - number).raw)).status == 200
        for more in range(3):  # it goes on; of the time that passes it gets what nobody needs
            answer = await pay(desk, kind, FLOODER, junk(desk, 100 + 3 * number + more))
            assert answer.code in ("bad_signature", "too_many_refused")


@asynchronous
async def test_who_shares_its_address_is_answered_on_what_was_taken_and_taken_as_time_allows():
    desk = make_desk()
    newest = desk.samples[0].sign(9_000_000).raw
    await pay(desk, "future", FLOODER, newest)
    await flood(desk, "future")
    neighbour = desk.samples[1].sign(9_000_000).raw
    refused = await pay(desk, "future", FLOODER, neighbour, 1)
    assert (refused.status, refused.code) == (429, "too_many_refused")
    again = await pay(desk, "future", FLOODER, newest)
    assert (again.status, again.json["value_received"]) == (200, 0)
    for _ in range(100):  # the same again, as the answer says: the time that passes is his, too
        await asyncio.sleep(0.05)
        answer = await pay(desk, "future", FLOODER, neighbour, 1)
        if answer.status == 200:
            return
    raise AssertionError("it was never taken")


@asynchronous
async def test_an_address_that_floods_one_channel_leaves_its_payer_the_half_of_what_may_fail():
    desk = make_desk(failing_per_mille=1000)
    told = [(await pay(desk, "batch", FLOODER, junk(desk, number))).code for number in range(FAILURES_MAX // 2 + 3)]
    assert told[-1] == "too_many_refused" and set(told[:-2]) <= {"bad_signature", "too_many_refused"}
    assert (await pay(desk, "future", HONEST, desk.samples[0].sign(9_000_000).raw)).status == 200


@asynchronous
async def test_what_is_refused_unseen_or_after_it_was_signed_for_is_not_counted():
    desk = make_desk(failures_per_minute=3)
    sample = desk.samples[0]
    assert (await pay(desk, "future", FLOODER, sample.sign(8_000_000).raw)).status == 200
    desk.trouble = "signer_unavailable"
    for _ in range(5):
        await pay(desk, "future", FLOODER, junk(desk, 0))
    assert not desk.limits.table.is_failing(FLOODER)
    desk.trouble = ""
    for number in range(4):
        await pay(desk, "future", FLOODER, junk(desk, number))
    assert desk.limits.table.is_failing(FLOODER)


# --- connections ---


class Wire:
    """One connection's transport. `host`: of its other end."""

    def __init__(self, host):
        self.host, self.written, self.is_closed = host, b"", False

    def get_extra_info(self, _):
        return self.host, 4711

    def write(self, data):
        self.written += data

    def close(self):
        self.is_closed = True

    abort = close


class Port:
    """A worker's own port, and for whom the requests were counted that came to it."""

    def __init__(self, **limits):
        self.counted = []
        config = SimpleNamespace(direct_base_port=0, public_url="", http_host="h", direct_public_host="")
        self.limits = Limits(LimitsConfig(exempt=Networks(), **limits))
        self.port = DirectPort(config, self._answer, self.limits)

    async def _answer(self, method, path, query, body, address):
        self.counted.append(address)
        return Reply(200, b"{}")

    def connect(self, host):
        wire, connection = Wire(host), self.port._door.connect()
        connection.connection_made(wire)
        return wire, connection

    async def ask(self, host, *headers):
        """Return whom a request is counted for."""
        _, connection = self.connect(host)
        lines = "".join(f"{header}\r\n" for header in headers)
        connection.data_received(f"GET /x HTTP/1.1\r\nHost: h\r\n{lines}\r\n".encode())
        await settle()
        return self.counted.pop()


@asynchronous
async def test_connections_of_one_address_are_bounded_and_given_back():
    port = Port(connections=2)
    held = [port.connect("192.0.2.66") for _ in range(2)]
    for _ in range(3):
        wire, connection = port.connect("192.0.2.66")
        assert wire.is_closed and wire.written.startswith(b"HTTP/1.1 429 ") and b"retry-after: 1\r\n" in wire.written
        assert b'"too_many_connections"' in wire.written
        connection.connection_lost(None)
    assert not port.connect("192.0.2.67")[0].is_closed
    held[0][1].connection_lost(None)
    assert not port.connect("192.0.2.66")[0].is_closed
    assert port.connect("192.0.2.66")[0].is_closed


@asynchronous
async def test_a_trusted_proxys_connections_are_not_its_clients():
    port = Port(connections=2, trusted_proxies=Networks(["10.0.0.0/8"]))
    assert not any(port.connect("10.0.0.1")[0].is_closed for _ in range(5))
    assert [port.connect("192.0.2.1")[0].is_closed for _ in range(3)] == [False, False, True]


@asynchronous
async def test_the_header_is_believed_of_trusted_proxies_alone():
    port = Port(trusted_proxies=Networks(["10.0.0.0/8"]))
    number = {text: number_of(read_address(text)) for text in ("192.0.2.66", "198.51.100.7", "10.0.0.1")}
    forged = "X-Forwarded-For: 198.51.100.7"
    assert await port.ask("192.0.2.66", forged) == number["192.0.2.66"]
    assert await port.ask("10.0.0.1", forged) == number["198.51.100.7"]
    assert await port.ask("10.0.0.1", forged, "x-FORWARDED-for:  192.0.2.66 , 10.0.0.2") == number["192.0.2.66"]
    assert await port.ask("10.0.0.1", "Forwarded: for=198.51.100.7", "X-Forwarded-For: 192.0.2.66") == number["192.0.2.66"]
    assert await port.ask("10.0.0.1", "Forwarded: for=198.51.100.7") == number["10.0.0.1"]
