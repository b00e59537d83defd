"""Every kind of payment request on one compiled intake, for tests: the real rules (`Payments`), a channel table, a store that the
test answers for, and what the doors talk to, faked: transports that keep what is written, granian's objects, the end of a link.
"""

import asyncio
import base64
import functools
from types import SimpleNamespace

import orjson

from paychan._fast.batch import Batch
from paychan._fast.channel import FAILING_PER_MILLE, ChannelTable
from paychan._fast.forward import ForwardLink, OwnerEnd
from paychan._fast.intake import FutureRequest
from paychan._fast.rsgi import RsgiDoor
from paychan.core.channel import ChannelState
from paychan.core.errors import Unavailable
from paychan.core.network import TEST
from paychan.core.payment import Payment
from paychan.server.channels.payments import Payments
from paychan.server.doors.direct import DirectPort
from paychan.server.doors.headers import SUCCESS_HEADERS
from paychan.server.doors.peers import PAYLOAD_MAX
from paychan.server.protocol.replies import Reply, closed_result, problem
from paychan.server.shards.committer import Committer
from paychan.server.shards.loading import Loaded
from tests.differential.channels import NOW, SETTLEMENT_PERIOD, SHARD_COUNT, make_sample, own_all

KINDS = ("future", "direct", "forwarded", "batch", "rsgi")
TURNS = 12


async def settle(turns=TURNS):
    for _ in range(turns):
        await asyncio.sleep(0)


def asynchronous(test):
    @functools.wraps(test)
    def run(*arguments, **options):
        asyncio.run(asyncio.wait_for(test(*arguments, **options), 60))

    return run


class Answer:
    """What became of one request. `count` must never be more than 1."""

    def __init__(self, on_answer=lambda _: None):
        self.status, self.body, self.count, self._on_answer = 0, b"", 0, on_answer

    def give(self, status, body):
        self.status, self.body, self.count = status, body, self.count + 1
        self._on_answer(self)

    @property
    def json(self):
        return orjson.loads(self.body)

    @property
    def code(self):
        return self.json.get("code", "")


class Transport:
    """Hands what is written to `sink`, when the loop turns."""

    def __init__(self, sink):
        self._sink, self._loop, self.closed, self.paused = sink, asyncio.get_running_loop(), False, False

    def get_extra_info(self, name):
        return ("192.0.2.1", 4711) if name == "peername" else None

    def write(self, data):
        assert not self.closed
        self._loop.call_soon(self._sink, bytes(data))

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    abort = close

    def pause_reading(self):
        self.paused = True

    def resume_reading(self):
        self.paused = False


class Responses:
    """Cuts HTTP answers out of what a connection writes, and gives them to those who wait, in order."""

    def __init__(self):
        self.waiting, self._rest = [], b""

    def feed(self, data):
        self._rest += data
        while b"\r\n\r\n" in self._rest:
            head, _, rest = self._rest.partition(b"\r\n\r\n")
            size = next(int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
            if len(rest) < size:
                return
            self._rest = rest[size:]
            self.waiting.pop(0).give(int(head[9:12]), rest[:size])


class Desk:
    """An intake with all its doors. `store` has `commit(payload)`; `reload(outpoint)` returns the ChannelState to load, or None."""

    def __init__(self, store, samples=3, name="doors", failing_per_mille=FAILING_PER_MILLE, limits=None):
        """failing_per_mille: of the table. limits: what addresses may cost; requests come from `address`."""
        self.table = own_all(ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD, failing_per_mille))
        self.limits, self.address = limits, 0
        self.store, self.committer = store, Committer(self.table, store)
        self.samples = [make_sample(f"{name} {number}") for number in range(samples)]
        self.by_outpoint = {sample.terms.outpoint: sample for sample in self.samples}
        self.states = {}  # by outpoint: what a reading finds, the opening if nothing is there
        self.loads = 0
        self.is_readable = True
        self.sent_elsewhere = []
        self.trouble = ""
        self.tip = SimpleNamespace(is_doubtful=False, clock_doubt="")
        self.payments = Payments(
            TEST,
            self.table,
            self.committer,
            SimpleNamespace(want=self._want),
            SimpleNamespace(settle_begun=self._settle_begun, settle_early=lambda outpoint: None),
            SimpleNamespace(check=None),
            self.tip,
            lambda: NOW,
            1 << 60,
            SimpleNamespace(want=lambda outpoint: None),
            SimpleNamespace(snapshot=None),
            lambda: self.trouble,
            lambda request, outpoint, _: self.sent_elsewhere.append((request, outpoint)),
            limits.table if limits is not None else None,
        )
        self.intake = self.payments.intake
        for sample in self.samples:
            sample.load(self.table)
        self._make_doors()

    def _make_doors(self):
        loop = asyncio.get_running_loop()
        config = SimpleNamespace(direct_base_port=0, public_url="", http_host="h", direct_public_host="")
        self.port = DirectPort(config, None, self.limits)
        self.port.serve(self.intake)
        self.connection, self._responses = self.port._door.connect(), Responses()
        self.connection.connection_made(Transport(self._responses.feed))
        self.rsgi = RsgiDoor(
            loop.call_soon_threadsafe, lambda watcher: None, self._respond, SUCCESS_HEADERS, lambda scope: self.address
        )
        self.rsgi.intake = self.intake
        self.refused = []
        self.owner = OwnerEnd(PAYLOAD_MAX, loop.call_soon, lambda: self.intake, lambda *_: None, lambda _: None, lambda _: None)
        self.link = ForwardLink(
            PAYLOAD_MAX, loop.call_soon, Reply, lambda *given: self.refused.append(given), problem(Unavailable("owner_moved"))
        )
        self.owner.connection_made(Transport(self.link.data_received))
        self.link.connection_made(Transport(self.owner.data_received))

    def _respond(self, scope, proto, reply):
        proto.response_bytes(reply.status, [], reply.body)

    async def _settle_begun(self, outpoint, received):
        return closed_result(0, received, bytes(32))

    def _want(self, outpoint, done):
        asyncio.get_running_loop().call_soon(self._load, outpoint, done)

    def _load(self, outpoint, done):
        self.loads += 1
        if not self.is_readable:
            done(Loaded.FAILED)
        elif outpoint not in self.by_outpoint:
            done(Loaded.MISSING)
        else:
            if not self.table.is_loaded(outpoint):
                self.reload(outpoint)
            done(Loaded.FOUND)

    def reload(self, outpoint):
        """Read a channel again: its newest durable state, whatever was in memory."""
        sample = self.by_outpoint[outpoint]
        if outpoint not in self.states:
            sample.load(self.table)
            return
        self.table.load(sample.terms, self.states[outpoint])
        self.table.mark_checked(outpoint, self.table.chain_generation)

    # --- requests ---

    def query(self, raw):
        return f"payment={base64.urlsafe_b64encode(raw).decode()}"

    def submit(self, kind, number, raw, on_answer=lambda _: None):
        """Send one payment (binary form) for a channel through one kind of request; return its Answer."""
        sample, answer = self.samples[number], Answer(on_answer)
        getattr(self, f"_submit_{kind}")(sample.terms.outpoint, sample.path, raw, answer)
        return answer

    def _future_request(self, path, raw, answer):
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: answer.give(done.result().status, done.result().body))
        return FutureRequest(self.intake, path, self.query(raw), future, address=self.address)

    def _submit_future(self, outpoint, path, raw, answer):
        self.intake.submit(self._future_request(path, raw, answer))

    def _submit_direct(self, outpoint, path, raw, answer):
        self._responses.waiting.append(answer)
        self.connection.data_received(f"PUT {path}?{self.query(raw)} HTTP/1.1\r\nHost: h\r\n\r\n".encode())

    def _submit_forwarded(self, outpoint, path, raw, answer):
        self.link.ask(self._future_request(path, raw, answer), outpoint)

    def _submit_batch(self, outpoint, path, raw, answer):
        self.submit_batch([(outpoint, raw)], [answer])

    def _submit_rsgi(self, outpoint, path, raw, answer):
        proto = SimpleNamespace(response_bytes=lambda status, headers, body: answer.give(status, body))
        scope = SimpleNamespace(method="PUT", path=path, query_string=self.query(raw), headers={})
        self.rsgi.schedule(SimpleNamespace(scope=scope, proto=proto))

    def submit_batch(self, payments, answers):
        """Send (outpoint, binary payment) in one batch; each Answer gets its part."""
        body = b"".join(outpoint + bytes((len(raw),)) + raw for outpoint, raw in payments)

        def done(content):
            at = 0
            for answer in answers:
                status, size = (int.from_bytes(content[at + i : at + i + 2], "little") for i in (0, 2))
                answer.give(status, content[at + 4 : at + 4 + size])
                at += 4 + size
            assert at == len(content)

        later = asyncio.get_running_loop().call_soon
        Batch(body, lambda raw: base64.urlsafe_b64encode(raw).decode(), done, later, self.address).submit(self.intake)


def state_of(entry_state: bytes) -> ChannelState:
    """Return the state that a COMMIT's entry carries."""
    return ChannelState.parse(entry_state)


def payment_of(paid) -> Payment:
    return Payment(paid.change_value, paid.signature, paid.sighash_type)
