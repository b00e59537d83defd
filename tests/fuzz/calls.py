"""Targets of the fuzzer that are called: batches, forwarded payments, the store's judge, records, messages, configurations.

Each is a function of (bytes, cut) that returns a verdict, a small number, and asserts what must hold: what a reader written
another way finds, that what is understood and written out again is the same, that nothing but the promised exception is raised.
A new verdict is a new way; where an exception was raised is part of it.
"""

import base64
import random
import struct
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from paychan._fast.channel import ChannelTable
from paychan._fast.channel import shard_of as compiled_shard_of
from paychan._fast.commit import CommitQueue
from paychan._fast.frame import encode_frame
from paychan._fast.intake import FutureRequest, Intake
from paychan.core.channel import STATE_HEAD, TERMS_HEAD, ChannelState, ChannelTerms, Phase
from paychan.core.errors import BY_NUMBER, ConfigError
from paychan.core.payment import Payment
from paychan.core.sales import Purchase, Sales
from paychan.rpc import signer_messages, store_messages, stores_messages
from paychan.rpc.store_messages import Entry, MessageError
from paychan.server.channels.payments import REFUSALS_BY_FORM
from paychan.server.protocol.replies import Reply, problem_of_status
from paychan.settings.load import load_server_config, load_signer_config, load_store_config
from tests.differential.channels import NOW, SETTLEMENT_PERIOD, SHARD_COUNT, make_sample, own_all

Call = Callable[[bytes, int], int]

SAMPLE = make_sample("fuzz")
TERMS = SAMPLE.terms
GOOD_PAYMENT = SAMPLE.sign(9_000_000).raw
LATER_PAYMENT = SAMPLE.sign(8_000_000).raw
STATUS_ODD = 503
CONFIGS = Path(__file__).parents[2] / "config"


def place_of(error: BaseException) -> int:
    """Return the line where an exception was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_lineno if trace is not None else 0


# --- payments through the intake ---


class Rules:
    """What an intake asks, without a server behind it: what is not plain is answered 503, writes end at once."""

    lost = moved = Reply(STATUS_ODD, b"{}")

    def __init__(self) -> None:
        self.table = own_all(ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD))
        self.queue = CommitQueue(self.table, lambda: None, self._report, 4096)
        self.intake = Intake(self.table, self.queue, self, REFUSALS_BY_FORM, 1 << 60)
        self.errors: list[BaseException] = []

    def _report(self, error: BaseException) -> None:
        self.errors.append(error)

    def renew(self) -> None:
        """Have the channel as it was opened."""
        SAMPLE.load(self.table)
        self.errors.clear()

    def look(self) -> tuple[None, int]:
        return None, NOW

    def odd(self, request: Any, status: int, outpoint: bytes) -> None:
        request.answer(problem_of_status(status) if status in BY_NUMBER else self.lost)

    def elsewhere(self, request: Any, outpoint: bytes) -> None:
        request.answer(self.lost)

    def exhausted(self, request: Any, outpoint: bytes, value_received: int) -> None:
        request.answer(Reply(202, b"{}"))

    def exposed(self, outpoint: bytes) -> None:
        pass

    def time(self) -> int:
        return NOW

    def sold_out(self, outpoint: bytes) -> None:
        pass

    def proved(self, request: Any, outpoint: bytes) -> None:
        request.answer(Reply(200, b"{}"))

    def failed(self, error: Exception) -> Reply:
        self.errors.append(error)
        return self.lost

    def paid(self, body: bytes) -> Reply:
        return Reply(200, body)

    def check(self) -> None:
        assert not self.errors, self.errors[0]


def split_batch(body: bytes) -> list[tuple[bytes, bytes]] | None:
    """Return (outpoint, payment) pairs, None if it is no batch: batch.pyx, written another way."""
    found, left = [], body
    while left:
        size = left[36] if len(left) > 36 else len(left)
        if len(left) < 37 + size or len(found) == 1024:
            return None
        found.append((left[:36], left[37 : 37 + size]))
        left = left[37 + size :]
    return found


def batch_target(modules: dict[str, ModuleType]) -> Call:
    rules, batch = Rules(), modules["batch"]

    def call(data: bytes, _: int) -> int:
        rules.renew()
        answers: list[bytes] = []
        expected = split_batch(data)
        try:
            batch.Batch(data, lambda raw: raw.hex(), answers.append, lambda call: call()).submit(rules.intake)
        except ValueError:
            assert expected is None and not answers
            return 1
        assert expected is not None, "taken, but no batch"
        rules.check()
        settle(rules)
        (body,) = answers  # exactly one
        at, kinds = 0, 0
        for outpoint, payment in expected:
            status, size = struct.unpack_from("<HH", body, at)
            at += 4 + size
            kinds |= 1 << (status % 7)
            assert status != 200 or (outpoint == TERMS.outpoint and payment in (GOOD_PAYMENT, LATER_PAYMENT)), "paid by junk"
        assert at == len(body)
        return 2 + kinds

    return call


def settle(rules: Rules) -> None:
    """Let all waiting writes succeed."""
    while (group := rules.queue.take()) is not None:
        payload = rules.queue.seal(group)
        rules.queue.complete(group, bytes(int.from_bytes(payload[:2], "little")))
    rules.queue.rest()


class Transport:
    """What an end of a connection writes to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        assert not self.is_aborted
        self.written.append(data)

    def abort(self) -> None:
        self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_aborted


def frames_of(data: bytes, payload_max: int) -> tuple[list[tuple[int, int, bytes]], bool]:
    """Return the whole frames of a stream, and whether a bad head follows: frame.pyx, written another way."""
    frames, at = [], 0
    while len(data) - at >= 12:
        size, version, kind, zero, request_id = struct.unpack_from("<IBBHI", data, at)
        if version != 1 or zero or size > payload_max:
            return frames, True
        if len(data) - at < 12 + size:
            break
        frames.append((kind, request_id, data[at + 12 : at + 12 + size]))
        at += 12 + size
    return frames, False


PEER_PAYLOAD_MAX = 4096


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def at_once(callback: Callable[[], None]) -> None:
    """Be `call_soon` where no event loop runs."""
    callback()


def owner_target(modules: dict[str, ModuleType]) -> Call:
    """The answering end: one answer for each request, in any order of arrival; the connection ends at what is malformed."""
    rules, forward = Rules(), modules["forward"]

    def call(data: bytes, cut: int) -> int:
        rules.renew()
        others: list[int] = []
        transport = Transport()
        end = forward.OwnerEnd(
            PEER_PAYLOAD_MAX,
            at_once,
            lambda: rules.intake,
            lambda _, kind, __, ___: others.append(kind),
            lambda _: None,
            lambda _: None,
        )
        end.connection_made(transport)
        end.data_received(data[:cut])
        if not transport.is_aborted:
            end.data_received(data[cut:])
        rules.check()
        if not transport.is_aborted:
            settle(rules)
        expected, is_bad = [], False
        frames, ends_badly = frames_of(data, PEER_PAYLOAD_MAX)
        for kind, request_id, payload in frames:
            if kind in (2, 4):  # a payment; 4: of an address of whose requests too many fail
                if b"?" not in payload:
                    is_bad = True
                    break
                expected.append(request_id)
            elif kind == 3:  # a sale, or nothing that is one
                expected.append(request_id)
        assert transport.is_aborted == (is_bad or ends_badly)
        answers, rest_is_bad = frames_of(b"".join(transport.written), 1 << 20)
        assert not rest_is_bad and all(kind in (130, 131, 255) for kind, _, _ in answers)
        if not transport.is_aborted:
            assert sorted(request_id for _, request_id, _ in answers) == sorted(expected)
        else:
            assert len(answers) <= len(expected)
        statuses = {int.from_bytes(payload[:2], "little") % 13 for kind, _, payload in answers if kind in (130, 131)}
        return 1 + sum(1 << status for status in statuses) % 2000 + 2000 * transport.is_aborted + bool(others)

    return call


def asker_target(modules: dict[str, ModuleType]) -> Call:
    """The asking end: what was asked is answered at most once; an unknown id answers nobody."""
    rules, forward = Rules(), modules["forward"]

    class Future:
        def __init__(self) -> None:
            self.results: list[Any] = []

        def done(self) -> bool:
            return False  # so that a second answer would show

        def set_result(self, result: Any) -> None:
            self.results.append(result)

        set_exception = set_result

    def call(data: bytes, cut: int) -> int:
        transport, refused = Transport(), []
        link = forward.ForwardLink(
            PEER_PAYLOAD_MAX, at_once, lambda *parts: parts, lambda request, _: refused.append(request), Reply(503, b"gone")
        )
        link.connection_made(transport)
        futures = [Future() for _ in range(3)]
        for future in futures:
            link.ask(FutureRequest(rules.intake, "/v1/channels/a/0", "payment=x", future), bytes(36))
        link.data_received(data[:cut])
        if not transport.is_aborted:
            link.data_received(data[cut:])
        before = [len(future.results) for future in futures]
        assert sum(before) + len(refused) <= 3 and max(before) <= 1
        link.connection_lost(None)
        assert sum(len(future.results) for future in futures) + len(refused) == 3, "an answer is missing, or one too many"
        return 1 + sum(before) + 8 * len(refused) + 32 * transport.is_aborted

    return call


# --- the store ---


def parts_of(payload: bytes, entries_max: int) -> tuple[list[tuple], list[tuple]] | None:
    """Return the fields of a COMMIT's entries and its claims, None if it is none: group.pyx, written another way."""
    if len(payload) < 2:
        return None
    head = store_messages.ENTRY_HEAD.size
    count, at, found = int.from_bytes(payload[:2], "little"), 2, []
    for _ in range(count):
        if len(payload) - at < head:
            return None
        state_size, *names, sales_size, extra_size, value, credit = store_messages.ENTRY_HEAD.unpack_from(payload, at)
        end = at + head + sales_size + state_size + extra_size
        if end > len(payload) or sales_size not in (0, 16):
            return None
        sales = struct.unpack_from("<QQ", payload, at + head) if sales_size else (0, 0)
        state = payload[end - extra_size - state_size : end - extra_size]
        found.append((*names, value, state, payload[end - extra_size : end], credit, *sales))
        at = end
    claims = payload[at + 2 :]
    is_whole = len(payload) >= at + 2 and len(claims) == store_messages.CLAIM.size * int.from_bytes(payload[at : at + 2], "little")
    return (found, list(store_messages.CLAIM.iter_unpack(claims))) if is_whole and count <= entries_max else None


def _state_of(record: bytes) -> tuple[int, int, int, int] | None:
    """Return (phase, change value, spent, revision) of a state record, None if it is none."""
    if len(record) < 12 or record[0] not in (1, 2):
        return None
    spent, revision, rest = 0, 0, len(record) - record[3] - (32 if record[1] >= 3 else 0) - 12 * record[0] - 4 * (record[0] - 1)
    if record[0] == 2:
        if rest < 0 or rest % 44 or rest > 176 or record[2] != 1:
            return None
        spent, revision = struct.unpack_from("<QQ", record, 12)
        rows = list(struct.iter_unpack("<16sQQQI", record[len(record) - rest :]))
        if not revision or sum(held for _, _, held, _, _ in rows) > spent or any(held > asked for _, asked, held, _, _ in rows):
            return None
    elif rest:
        return None
    return record[1], int.from_bytes(record[4:12], "little"), spent, revision


def commit_target(modules: dict[str, ModuleType]) -> Call:
    """The judge of COMMITs, against the same rules in Python; the groups' channels are one open, one absent."""
    group = modules["group"]
    epochs = [7] * SHARD_COUNT
    stored = {TERMS.outpoint: ChannelState(Phase.OPEN, Payment(9_000_000, b"s" * 70, 0x83)).serialize()}

    class Group(group.PaymentGroup):
        def read(self, outpoints):
            return [(stored.get(outpoint), TERMS.serialize() if outpoint in stored else None) for outpoint in outpoints]

        def judge_step(self, *fields):
            return is_open_step(fields)

    def shard_of(outpoint: bytes) -> int:
        return compiled_shard_of(outpoint, SHARD_COUNT)

    def is_open_step(fields: tuple) -> bool:
        state = _state_of(fields[5])
        return fields[3] == 0 and bool(fields[6]) and state is not None and state[1] <= fields[4]

    def judge(known: dict[bytes, tuple[int, int, int, int]], stopped: set[int], fields: tuple) -> tuple[int, int]:
        """Return the answer to an update, and what it pays."""
        shard, epoch, outpoint, phase, value, state, extra, credit, revision, charge = fields
        before = known.get(outpoint) or (_state_of(stored[outpoint]) if outpoint in stored else (0, 0, 0, 0))
        after = _state_of(state)
        if shard >= SHARD_COUNT:
            return 3, 0
        if epoch != epochs[shard]:
            return 1, 0
        if shard in stopped and not (phase and not credit and not charge and after and after[0] != 1 and after[1] == value):
            return 4, 0
        if phase != before[0] or (before[0] and value != before[1]) or revision != before[3]:
            return 2, 0
        if shard != shard_of(outpoint) or after is None:
            return 3, 0
        if (after[2] != before[2]) if after[3] == before[3] else (before[0] != 1 or after[3] < before[3]):
            return 3, 0
        is_payment = before[0] == 1 and after[0] == 1 and after[1] <= before[1] and not extra
        if not is_payment and not is_open_step(fields):
            return 3, 0
        received = TERMS.funding_value - after[1] if is_payment else after[2]
        if value - after[1] != credit or (after[2] - before[2]) % 2**64 != charge or after[2] > received:
            stopped.add(shard)
            return 4, 0
        known[outpoint] = after
        return 0, before[1] - after[1] if is_payment else 0

    def call(data: bytes, _: int) -> int:
        expected = parts_of(data, 64)
        try:
            group.check_entries(data, 64)
        except ValueError:
            assert expected is None
            return 1
        assert expected is not None
        entries, claims = expected
        assert group.split_entries(data, 64) == entries
        cache = group.StateCache(0)
        judged, paid, known, stopped = Group(cache, epochs, SHARD_COUNT, 5), 5, {}, set()
        answers = judged.judge(data)
        for fields, answer in zip(entries, answers, strict=True):
            status, received = judge(known, stopped, fields)
            assert answer == status, (answer, status)
            paid += received
        assert judged.open_value == paid
        owned = [what % 4096 for what, epoch, told in claims if told and what // 4096 < 2 and what % 4096 < SHARD_COUNT
                 and epoch == epochs[what % 4096]]  # fmt: skip
        stopped |= set(owned)
        assert set(cache.accounts.stopped) == stopped
        writes: dict[bytes, bytes] = {}
        judged.put_states(writes, b"S")
        assert {key[1:]: _state_of(record) for key, record in writes.items()} == known
        return 2 + sum(1 << answer for answer in set(answers)) + 64 * bool(claims) + 128 * bool(stopped)

    return call


def record_target(modules: dict[str, ModuleType]) -> Call:
    """State records by both readers, terms records by theirs: only what `serialize` makes."""
    read_state = modules["group"].read_state

    def call(data: bytes, _: int) -> int:
        verdict = 1
        compact = None
        try:
            compact = read_state(data)
        except ValueError as error:
            assert "state record" in str(error)
        try:
            state = ChannelState.parse(data)
            assert state.serialize() == data
            assert compact == (state.phase, state.payment.change_value), "the two readers differ"
            verdict += state.phase
        except ValueError as error:
            assert compact is None or compact[0] not in range(1, 6), "only one reader refuses"
            verdict += place_of(error)
        try:
            terms = ChannelTerms.parse(bytes(36), data)
            assert terms.serialize() == data
            verdict += 1000
        except ValueError as error:
            verdict += 1000 + place_of(error)
        return verdict

    return call


MESSAGES: list[tuple[Callable[[bytes], Any], Callable[[Any], bytes] | None]] = [
    (store_messages.Hello.decode, store_messages.Hello.encode),
    (store_messages.Welcome.decode, store_messages.Welcome.encode),
    (store_messages.OwnerTable.decode, None),  # a worker's number given twice is not written twice
    (store_messages.decode_commit, lambda entries: store_messages.encode_commit([entry.encode() for entry in entries])),
    (store_messages.decode_load, store_messages.encode_load),
    (store_messages.decode_load_reply, store_messages.encode_load_reply),
    (store_messages.Scan.decode, store_messages.Scan.encode),
    (store_messages.decode_found, store_messages.encode_found),
    (store_messages.decode_heartbeat_reply, lambda told: store_messages.encode_heartbeat_reply(*told)),
    (signer_messages.SettleRequest.decode, signer_messages.SettleRequest.encode),
    (signer_messages.Refusal.decode, signer_messages.Refusal.encode),
    (store_messages.decode_received, store_messages.encode_received),
    (stores_messages.decode_stores, None),  # for the same reason
]


def message_target(_: dict[str, ModuleType]) -> Call:
    """Messages of store and signer: the first byte chooses the kind."""

    def call(data: bytes, _: int) -> int:
        kind = data[0] % len(MESSAGES) if data else 0
        decode, encode = MESSAGES[kind]
        payload = data[1:]
        try:
            value = decode(payload)
        except MessageError as error:
            return 100 * kind + place_of(error) % 100
        if encode is not None and kind != 3:  # COMMIT's reserved byte is not looked at
            assert encode(value) == payload
        return 100 * len(MESSAGES) + kind

    return call


def config_target(_: dict[str, ModuleType]) -> Call:
    """Configurations: ConfigError, each problem one line, or a configuration; the first byte chooses the process."""
    loaders = (load_server_config, load_store_config, load_signer_config)
    file = Path(f"/dev/shm/paychan-fuzz-{random.getrandbits(64):x}.toml")
    if not file.parent.exists():
        file = Path(f"/tmp/{file.name}")

    def call(data: bytes, _: int) -> int:
        kind = data[0] % 3 if data else 0
        file.write_bytes(data[1:])
        try:
            loaders[kind](file, {})
        except ConfigError as error:
            for problem in error.problems:
                assert problem.startswith(f"{file}: ") and "\n" not in problem, problem
            return 1 + 1000 * kind + sum(map(place_hash, error.problems)) % 997
        finally:
            file.unlink()
        return 3001 + kind

    def place_hash(problem: str) -> int:
        return sum(problem.split(": ")[1].encode()) % 997

    return call


# --- seeds ---


def batch_seeds() -> list[bytes]:
    def row(payment: bytes, outpoint: bytes = TERMS.outpoint) -> bytes:
        return outpoint + bytes((len(payment),)) + payment

    good = row(GOOD_PAYMENT)
    return [b"", good, good + row(LATER_PAYMENT), row(LATER_PAYMENT) + good, row(b""), row(GOOD_PAYMENT, bytes(36)), good[:-1]]


def owner_seeds() -> list[bytes]:
    def frame(kind: int, number: int, path: str, query: str) -> bytes:
        return encode_frame(kind, number, f"{path}?{query}".encode())

    query = "payment=" + base64.urlsafe_b64encode(GOOD_PAYMENT).decode()
    good = frame(2, 1, SAMPLE.path, query)
    sale = struct.pack("<B36s16sQQII", 1, TERMS.outpoint, b"k" * 16, 100, 0, 0, 7)
    return [
        good,
        encode_frame(3, 1, sale + GOOD_PAYMENT),
        encode_frame(3, 2, sale) + encode_frame(3, 3, b"\2" + sale[1:61] + (1).to_bytes(8, "little") + sale[69:]),
        encode_frame(3, 4, b"\3" + sale[1:] + GOOD_PAYMENT),
        encode_frame(3, 5, sale[:76]),
        good + frame(2, 2, SAMPLE.path, query),
        frame(2, 3, "/x", ""),
        encode_frame(1, 4, b"hello"),
        frame(4, 8, SAMPLE.path, query) + encode_frame(4, 9, b"no query"),
        good[:40],
        encode_frame(2, 5, b""),
        encode_frame(2, 6, b"\xff\xff"),
        frame(2, 7, SAMPLE.path, query + "&change_address=x"),
    ]


def asker_seeds() -> list[bytes]:
    def answer(number: int, status: int, location: bytes, body: bytes) -> bytes:
        return encode_frame(130, number, struct.pack("<HH", status, len(location)) + location + body)

    return [
        answer(1, 200, b"", b"{}"),
        answer(2, 409, b"/v1", b"") + answer(1, 200, b"", b""),
        encode_frame(255, 3, b""),
        encode_frame(130, 1, b"a"),
        encode_frame(255, 1, b"") + answer(1, 200, b"", b""),
    ]


def commit_seeds() -> list[bytes]:
    shard_of = compiled_shard_of
    shard = shard_of(TERMS.outpoint, SHARD_COUNT)
    new = ChannelState(Phase.OPEN, Payment(8_000_000, b"s" * 71, 0x83)).serialize()
    pay = Entry(shard, 7, TERMS.outpoint, 1, 9_000_000, new)
    open_ = Entry(shard_of(bytes(36), SHARD_COUNT), 7, bytes(36), 0, 10_000_000, new, TERMS.serialize())
    again = Entry(shard, 7, TERMS.outpoint, 1, 8_000_000, new)
    stale = Entry(shard, 6, TERMS.outpoint, 1, 9_000_000, new)
    greedy = Entry(shard, 7, TERMS.outpoint, 1, 9_000_000, new, credit=1_000_001)
    sold = [Sales(60, 1, (Purchase(b"k" * 16, 60, 60, 1),)), Sales(50, 2, (Purchase(b"k" * 16, 60, 50, 1, 9),))]
    states = [ChannelState(Phase.OPEN, Payment(8_000_000, b"s" * 71, 0x83), b"", sales).serialize() for sales in sold]
    sell = Entry(shard, 7, TERMS.outpoint, 1, 9_000_000, states[0], charge=60)
    back = Entry(shard, 7, TERMS.outpoint, 1, 8_000_000, states[1], expected_revision=1, charge=2**64 - 10)
    sales = [[sell], [sell, back], [back, sell], [sell, pay]]
    rows = [[], [pay], [open_], [pay, again], [stale], [pay, open_, stale], [pay, pay], [greedy, pay], *sales]
    seeds = [store_messages.encode_commit([entry.encode() for entry in row]) for row in rows]
    return [*seeds, store_messages.encode_commit([pay.encode()], [(shard, 7, 0), (shard, 6, 5), (shard, 7, 1_000_000)])]


def record_seeds() -> list[bytes]:
    states = [ChannelState(phase, Payment(5, b"x" * 70, 0x83), bytes(32) if phase >= 3 else b"") for phase in Phase]
    sales = Sales(60, 2, (Purchase(b"k" * 16, 60, 40, 1), Purchase(b"l" * 16, 9, 9, 2, 1_900_000_000)))
    states += [replace(state, payment=Payment(5, b"x" * 8, 0x83), sales=sales) for state in states[::2]]
    return [state.serialize() for state in states] + [TERMS.serialize(), bytes(STATE_HEAD.size), bytes(TERMS_HEAD.size)]


def message_seeds() -> list[bytes]:
    sm, request = store_messages, signer_messages.SettleRequest(TERMS, Payment(9_000_000, GOOD_PAYMENT[8:-1], 0x83), 500, b"tx")
    values: list[Any] = [
        sm.Hello("test", b"k" * 33, "unix:x"),
        sm.Welcome(1, 256, 3000),
        sm.OwnerTable(1, {1: "unix:a"}, [(1, 2)] * 3),
        None,
        [bytes(36)],
        [sm.Stored(b"t", b"s", b"x"), None],
        sm.Scan(10),
        [(5, bytes(36))],
        (sm.Unsettled(77, 5), b"frozen"),
        request,
        signer_messages.Refusal(signer_messages.RefusalCode.UNECONOMIC, "why"),
        [(1_900_000_000, 77, bytes(36))],
    ]
    store = stores_messages.StoreSeen("a", 1, True, stores_messages.Life.ALIVE, 5, 1, 7, -1, 2, {1: "unix:a"}, {0: 1, 1: 0})
    stores = stores_messages.encode_stores(stores_messages.StoresSeen(9, 1, [store, store]))
    seeds = [bytes((3,)) + seed for seed in commit_seeds()] + [bytes((2,)) + values[2].encode(), bytes((12,)) + stores]
    for kind, value in enumerate(values):
        encode = MESSAGES[kind][1]
        if value is not None and encode is not None:
            seeds.append(bytes((kind,)) + encode(value))
    return seeds


def config_seeds() -> list[bytes]:
    names = ("server", "store", "signer")
    debug = (CONFIGS / "debug" / "server.toml").read_bytes()
    esplora = debug.replace(b'backend = "debug"', b'backend = "esplora"') + b'[esplora]\nurls = ["http://a", "https://b"]\n'
    return [b"\0" + esplora] + [
        bytes((kind,)) + (CONFIGS / directory / f"{name}.toml").read_bytes()
        for directory in ("debug", "test", "live", "regtest")
        for kind, name in enumerate(names)
    ]


def config_tokens() -> list[bytes]:
    keys: list[str] = []
    for directory in ("debug", "live"):
        for name in ("server", "store", "signer"):
            for key, value in tomllib.loads((CONFIGS / directory / f"{name}.toml").read_text()).items():
                keys += [f"{key} = ", *(f"{inner} = " for inner in value)] if isinstance(value, dict) else [f"{key} = "]
    pieces = [
        "true",
        "false",
        "0",
        "-1",
        "1.5",
        "9" * 30,
        "0x10",
        "1e3",
        "nan",
        "[]",
        "{}",
        '""',
        '"x"',
        '"unix:"',
        '"tcp:127.0.0.1:1"',
    ]
    pieces += [
        '"http://["',
        '["http://[", "https://a"]',
        '"\\u0000"',
        '"esplora"',
        '"bitcoind"',
        "[[1, 2]]",
        "[[1, 2], 3]",
        "[[1]]",
    ]
    pieces += ["[esplora]\n", 'urls = ["https://a", "https://b"]\n', "[a.b]\n", "a.b = 1\n", "1979-05-27", "[[", "]]", '"""', "'''"]
    pieces += ['"a\\nb" = 1\n', '["\\u001b[31m"]\n', '[esplora]\nurls = ["http://["]\n', 'urls = ["http://["]\n']
    pieces += ["9" * 5000, "[" * 3000, "{a=" * 1000]
    return [piece.encode() for piece in [*sorted(set(keys)), *pieces]]
