"""Aim: a connection of the own port answers every request once, in order, however its bytes come, and keeps no more than a bounded
rest of what it is sent. Method: real connections on transports in the test's hands; answers that the test holds back."""

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paychan._fast.direct import PIPELINED_MAX
from paychan.server.doors.direct import DirectPort
from paychan.server.protocol.replies import Reply
from tests.unit.doors import Desk, asynchronous, settle
from tests.unit.server.shards.test_committer import HandStore

CONFIG = SimpleNamespace(direct_base_port=0, public_url="", http_host="h", direct_public_host="")
CHUNK = 4096


class Wire:
    """The transport of one connection, strict: nothing is read while it is paused, nothing written once closed."""

    def __init__(self):
        self.written, self.is_paused, self.is_closed, self.is_aborted = b"", False, False, False
        self.pauses = 0
        self.connection = None
        self.stuffed_above = 1 << 60
        self._told = False

    def write(self, data):
        assert not self.is_closed
        self.written += bytes(data)
        if len(self.written) > self.stuffed_above and not self._told:
            self._told = True
            self.connection.pause_writing()

    def take(self):
        """The client reads everything."""
        self.written, self._told, was_told = b"", False, self._told
        if was_told:
            self.connection.resume_writing()

    def is_closing(self):
        return self.is_closed

    def close(self):
        self.is_closed = True

    def abort(self):
        self.is_closed = self.is_aborted = True

    def pause_reading(self):
        assert not self.is_paused
        self.is_paused = True
        self.pauses += 1

    def resume_reading(self):
        assert self.is_paused
        self.is_paused = False


class Scene:
    """A port, one connection to it, and the answers to what is no payment, which the test gives."""

    def __init__(self, intake=None):
        self.asked, self._held = [], []
        self.port = DirectPort(CONFIG, self._answer)
        self.port._door.intake = intake
        self.wire, self.connection = self.connect()

    def connect(self):
        wire, connection = Wire(), self.port._door.connect()
        wire.connection = connection
        connection.connection_made(wire)
        return wire, connection

    async def _answer(self, method, path, query, body, address):
        future = asyncio.get_running_loop().create_future()
        self.asked.append((method, path, query, body))
        self._held.append(future)
        return Reply(200, b"%d" % await future)

    def release(self, number):
        """Answer the request of this number (from 0) with it."""
        self._held[number].set_result(number)

    @property
    def held(self):
        return sum(not future.done() for future in self._held)

    @property
    def answers(self):
        return bodies(self.wire.written)


def bodies(written):
    """The answers in what was written: (status, body)."""
    found = []
    while written:
        head, _, rest = written.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        size = next((int(line[16:]) for line in lines if line.startswith(b"content-length: ")), 0)
        found.append((int(lines[0][9:12]), rest[:size]))
        written = rest[size:]
    return found


def get(path=b"/x", extra=b""):
    return b"GET " + path + b" HTTP/1.1\r\nHost: h\r\n" + extra + b"\r\n"


# --- order ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(order=st.permutations(range(8)), cuts=st.lists(st.integers(1, 60), max_size=30))
def test_answers_come_in_the_order_of_the_requests_whenever_they_are_found(order, cuts):
    async def play():
        scene = Scene()
        data = b"".join(get(b"/%d" % number) for number in range(8))
        for cut in cuts:
            scene.connection.data_received(data[:cut])
            data = data[cut:]
            if not data:
                break
        if data:
            scene.connection.data_received(data)
        await settle()
        assert [path for _, path, _, _ in scene.asked] == [f"/{number}" for number in range(8)]
        done = set()
        for number in order:
            scene.release(number)
            done.add(number)
            await settle(3)
            ready = next((i for i in range(8) if i not in done), 8)
            assert scene.answers == [(200, b"%d" % i) for i in range(ready)]

    asyncio.run(play())


@asynchronous
async def test_a_payment_waits_for_the_answer_to_what_came_before_it_and_not_for_what_came_after():
    desk = Desk(HandStore())
    scene = Scene(desk.intake)
    sample = desk.samples[0]
    raw = sample.sign(9_000_000).raw
    pay = f"PUT {sample.path}?{desk.query(raw)} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    scene.connection.data_received(get() + pay + get())
    await settle()
    await desk.store.answer()
    await settle()
    assert scene.answers == []
    scene.release(1)
    await settle()
    assert scene.answers == []
    scene.release(0)
    await settle()
    statuses = scene.answers
    assert [body[:1] for _, body in statuses] == [b"0", b"{", b"1"]


@pytest.mark.parametrize("kind", ["plain", "escaped", "batch"])
@asynchronous
async def test_a_request_may_be_split_at_every_byte(kind):
    """In two at each place, and into single bytes; a request before and after it on the same connection."""
    desk = Desk(HandStore())
    sample = desk.samples[0]
    raw = sample.opening.raw  # a replay, answered at once
    if kind == "batch":
        body = sample.terms.outpoint + bytes((len(raw),)) + raw
        whole = b"POST /v1/payments HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    else:
        path = sample.path.replace("/v1", "/%76%31") if kind == "escaped" else sample.path
        whole = f"PUT {path}?{desk.query(raw)} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n".encode()
    places = [(cut,) for cut in range(1, len(whole))] + [tuple(range(1, len(whole)))]
    for cuts in places:
        scene = Scene(desk.intake)
        pieces = [whole[a:b] for a, b in zip((0, *cuts), (*cuts, len(whole)), strict=True)]
        pieces[0], pieces[-1] = get(b"/before") + pieces[0], pieces[-1] + get(b"/after")
        for piece in pieces:
            scene.connection.data_received(piece)
        await settle(2)
        for number in range(len(scene.asked)):
            scene.release(number)
        await settle(4)
        assert [status for status, _ in scene.answers] == [200] * 3, cuts
        if kind == "batch":
            assert scene.asked[1] == ("POST", "/v1/payments", "", body)
        else:
            assert b'"value_received":0' in scene.answers[1][1]


# --- bounds -----------------------------------------------------------------------------------------------------------


@asynchronous
async def test_no_more_than_so_many_requests_wait():
    scene = Scene()
    scene.connection.data_received(get() * (PIPELINED_MAX + 10))
    await settle()
    assert (scene.held, scene.wire.is_paused) == (PIPELINED_MAX, True)
    scene.release(0)
    await settle()
    assert (scene.held, scene.wire.is_paused) == (PIPELINED_MAX, True)
    for number in range(1, PIPELINED_MAX + 10):
        scene.release(number)
        await settle(3)
    assert len(scene.answers) == PIPELINED_MAX + 10
    assert not scene.wire.is_paused


async def flood(scene, requests, chunk, rounds):
    """Send as a client would who never reads: all that the connection lets in. Return how many bytes those were."""
    data, sent = requests * (1 + chunk * rounds // len(requests)), 0
    for _ in range(rounds):
        if scene.wire.is_paused:
            break
        scene.connection.data_received(data[sent : sent + chunk])
        sent += chunk
        await settle(3)
        for future in scene._held:
            if not future.done():
                future.set_result(0)
        await settle(4)
    return sent


@pytest.mark.parametrize("chunk", [len(get()), len(get()) + 1, 1000, CHUNK, 65_536])
@asynchronous
async def test_who_does_not_take_answers_is_not_read_from(chunk):
    """Answers that are found later fill the transport while part of a request is kept: reading must stop then, too."""
    scene = Scene()
    scene.wire.stuffed_above = 10_000
    sent = await flood(scene, get(), chunk, rounds=400)
    assert scene.wire.is_paused, f"{sent} bytes were taken in"
    assert len(scene.wire.written) < 10_000 + 2 * PIPELINED_MAX * 500
    count = len(scene.answers)
    for _ in range(10_000):  # once he reads, all that he sent is answered
        if scene.wire.written == b"" and not scene.held:
            break
        scene.wire.take()
        await settle(4)
        for future in scene._held:
            if not future.done():
                future.set_result(0)
        await settle(4)
        count += len(scene.answers)
    assert count == sent // len(get())
    assert not scene.wire.is_paused


@asynchronous
async def test_more_connections_than_allowed_are_closed_at_once(monkeypatch):
    monkeypatch.setattr("paychan.server.doors.direct.CONNECTIONS_MAX", 2)
    scene = Scene()
    second, _ = scene.connect()
    third, connection = scene.connect()
    assert [wire.is_aborted for wire in (scene.wire, second, third)] == [False, False, True]
    connection.data_received(get())
    connection.connection_lost(None)
    await settle()
    assert (third.written, scene.asked) == (b"", [])
    second.connection.connection_lost(None)
    fourth, _ = scene.connect()
    assert not fourth.is_aborted


# --- ends -------------------------------------------------------------------------------------------------------------


@asynchronous
async def test_what_came_before_the_clients_end_is_answered():
    scene = Scene()
    scene.connection.data_received(get() * 3 + get()[:-2])  # and a part, which nobody can answer
    await settle()
    assert scene.connection.eof_received()
    scene.release(2)
    scene.release(0)
    await settle()
    assert not scene.wire.is_closed
    scene.release(1)
    await settle()
    assert scene.answers == [(200, b"0"), (200, b"1"), (200, b"2")]
    assert scene.wire.is_closed and not scene.wire.is_aborted


@asynchronous
async def test_an_end_with_nothing_to_answer_closes():
    scene = Scene()
    assert not scene.connection.eof_received()


@asynchronous
async def test_nothing_is_read_after_a_refusal_or_the_last_request():
    for raw, code in ((b"GET x HTTP/1.1\r\n\r\n", 400), (get(extra=b"Connection: close\r\n"), 200)):
        scene = Scene()
        scene.connection.data_received(raw + get(b"/smuggled"))
        scene.connection.data_received(get(b"/smuggled"))
        await settle()
        if scene.held:
            scene.release(0)
        await settle()
        assert [status for status, _ in scene.answers] == [code]
        assert scene.wire.is_closed
        assert not any(path == "/smuggled" for _, path, _, _ in scene.asked)


@asynchronous
async def test_a_refusal_waits_for_the_answers_before_it():
    scene = Scene()
    scene.connection.data_received(get() + b"nonsense\r\n\r\n")
    await settle()
    assert scene.answers == [] and not scene.wire.is_closed
    scene.release(0)
    await settle()
    assert [status for status, _ in scene.answers] == [200, 400]
    assert scene.wire.is_closed


@asynchronous
async def test_an_answer_that_nobody_waits_for_is_dropped():
    scene = Scene()
    scene.connection.data_received(get() * 2)
    await settle()
    scene.connection.connection_lost(None)
    for number in (1, 0):
        scene.release(number)
    await settle()
    assert scene.wire.written == b""
    assert not scene.port._door.connections


# --- bodies -----------------------------------------------------------------------------------------------------------


BATCH_HEAD = b"POST /v1/payments HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n"


@asynchronous
async def test_a_client_that_waits_before_its_body_is_told_to_go_on_once():
    scene = Scene()
    for byte in BATCH_HEAD:
        scene.connection.data_received(bytes((byte,)))
    assert scene.wire.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    scene.connection.data_received(b"01234")
    assert scene.wire.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    scene.connection.data_received(b"56789" + BATCH_HEAD)
    await settle()
    assert scene.asked == [("POST", "/v1/payments", "", b"0123456789")]
    scene.release(0)
    await settle()
    assert scene.answers == [(100, b""), (200, b"0"), (100, b"")]


@asynchronous
async def test_nobody_is_told_to_go_on_who_has_gone_on():
    scene = Scene()
    scene.connection.data_received(BATCH_HEAD + b"0123456789")
    await settle()
    assert scene.wire.written == b""


@pytest.mark.parametrize("method", [b"PUT", b"GET", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH"])
@asynchronous
async def test_no_other_request_has_a_body(method):
    for path in (b"/v1/payments", b"/v1/channels/new", b"/x"):
        scene = Scene()
        scene.connection.data_received(method + b" " + path + b" HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello" + get())
        await settle()
        head, _, body = scene.wire.written.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert (b"body_not_allowed" in body) == (method != b"HEAD") and (body == b"") == (method == b"HEAD")
        assert scene.wire.is_closed and scene.asked == []


# --- targets ----------------------------------------------------------------------------------------------------------

TARGETS = [
    (b"/a?b", "/a", "b"),
    (b"*", "*", ""),
    (b"http://x:1/a?b", "/a", "b"),
    (b"HTTPS://[::1]/a%2fb?", "/a/b", ""),
    (b"http://x", "/", ""),
    (b"http://x?", "/", ""),
    (b"http://x?/a", "/", "/a"),
    (b"http://x/", "/", ""),
    (b"http://x/?a", "/", "a"),
]


@pytest.mark.parametrize(("target", "path", "query"), TARGETS)
@asynchronous
async def test_a_target_of_any_form_is_asked_for_by_its_path(target, path, query):
    scene = Scene()
    requests = [b"%s %s HTTP/1.1\r\nHost: h\r\n\r\n" % (method, target) for method in (b"GET", b"PUT", b"OPTIONS")]
    scene.connection.data_received(b"".join(requests))
    await settle()
    assert scene.asked == [(method, path, query, b"") for method in ("GET", "PUT", "OPTIONS")]


# --- time -------------------------------------------------------------------------------------------------------------


@asynchronous
async def test_silence_ends_a_connection_and_slowness_is_told():
    """A part of a request, a body that does not come, nothing at all; whoever waits for us is not ended."""
    for sent, status in ((get()[:-1], 408), (BATCH_HEAD + b"012", 408), (b"", 0)):
        scene = Scene()
        scene.connection.data_received(sent) if sent else None
        for _ in range(3):
            scene.port._door.sweep(3)
        assert not scene.wire.is_closed
        scene.port._door.sweep(3)
        assert scene.wire.is_closed
        assert [code for code, _ in bodies(scene.wire.written) if code != 100] == ([status] if status else [])


@asynchronous
async def test_who_waits_for_an_answer_is_not_silent():
    scene = Scene()
    scene.connection.data_received(get())
    await settle()
    for _ in range(10):
        scene.port._door.sweep(3)
    assert not scene.wire.is_closed
    scene.release(0)
    await settle()
    for _ in range(4):
        assert not scene.wire.is_closed
        scene.port._door.sweep(3)
    assert scene.wire.is_aborted


@asynchronous
async def test_who_drips_bytes_is_slow_all_the_same():
    scene = Scene()
    for byte in get() * 2:
        scene.connection.data_received(bytes((byte,)))
        scene.port._door.sweep(3)
        if scene.wire.is_closed:
            break
    assert [status for status, _ in scene.answers] == [408]
    assert scene.asked == []


@asynchronous
async def test_who_takes_no_answers_is_given_up():
    scene = Scene()
    scene.wire.stuffed_above = 1000
    scene.connection.data_received(get() * PIPELINED_MAX)
    await settle()
    for number in range(PIPELINED_MAX):
        scene.release(number)
    await settle()
    for _ in range(10):
        scene.port._door.sweep(3)
    assert scene.wire.is_aborted


@asynchronous
async def test_a_client_that_pipelines_and_then_waits_before_its_body_is_told_to_go_on():
    """Not before the answers that it waits for first; but then, or it would wait for ever."""
    scene = Scene()
    scene.connection.data_received(get() + BATCH_HEAD)
    await settle()
    assert scene.wire.written == b""
    scene.release(0)
    await settle()
    assert scene.answers == [(200, b"0"), (100, b"")]
    scene.connection.data_received(b"0123456789")
    await settle()
    assert scene.asked[1] == ("POST", "/v1/payments", "", b"0123456789")
