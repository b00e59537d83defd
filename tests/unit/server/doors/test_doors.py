"""Aim: whatever way a payment comes in, nothing is answered before the store has said so, each is answered once, and one whose
outcome is unknown is not tried again behind the payer's back. Method: every kind of request on the real intake and rules, a store
in the test's hands (as in test_committer.py); in the end random interleavings of all of it, judged by the tiling rule."""

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paychan._fast.batch import BATCH_BYTES_MAX, BATCH_FAILURES_MAX, BATCH_PAYMENTS_MAX, BATCH_SLICE, Batch
from paychan._fast.channel import ChannelTable
from paychan._fast.forward import ForwardLink
from paychan._fast.frame import encode_frame
from paychan.core.channel import ChannelState
from paychan.rpc.connection import ConnectionGone, RemoteRefusal
from paychan.rpc.store_messages import EntryStatus, decode_commit
from paychan.server.doors.peers import PAYLOAD_MAX
from paychan.server.protocol.replies import Reply
from tests.differential.channels import SETTLEMENT_PERIOD, SHARD_COUNT
from tests.tiling import History, Operation, Outcome, check_all
from tests.unit.doors import KINDS, Answer, Desk, Transport, asynchronous, payment_of, settle
from tests.unit.server.shards.test_committer import CONFLICT, OK, STALE, HandStore

LATER = lambda call: asyncio.get_running_loop().call_soon(call)  # noqa: E731
ATTEMPTS_MAX = 4  # paychan/_fast/intake.pyx
FUNDING = 10_000_000


def body_of(left, received):
    text = f'{{"channel_status":"open","channel_value_left":{left},"value_received":{received},"settlement_txid":null}}\n'
    return text.encode()


def raw_of(desk, number, value, kind=0x83):
    return desk.samples[number].sign(value, kind).raw


def outpoint_of(desk, number):
    return desk.samples[number].terms.outpoint


# --- nothing before the write -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_nothing_is_answered_before_the_commit_returned(kind):
    desk = Desk(HandStore())
    answer = desk.submit(kind, 0, raw_of(desk, 0, 9_000_000))
    await settle()
    assert desk.store.in_flight == 1
    assert answer.count == 0
    await desk.store.answer()
    await settle()
    assert (answer.count, answer.status, answer.body) == (1, 200, body_of(9_000_000, 1_000_000))


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_what_gives_up_everything_is_answered_after_its_write(kind):
    desk = Desk(HandStore())
    answer = desk.submit(kind, 0, raw_of(desk, 0, 0, 0x82))
    await settle()
    assert desk.store.in_flight == 1 and answer.count == 0
    await desk.store.answer()
    await settle()
    assert (answer.count, answer.status, answer.json["value_received"]) == (1, 202, FUNDING)


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_a_replay_waits_for_the_write_of_the_first(kind):
    desk = Desk(HandStore())
    raw = raw_of(desk, 0, 9_000_000)
    answers = [desk.submit(kind, 0, raw) for _ in range(3)]
    await settle()
    in_flight = desk.submit(kind, 0, raw)
    await settle()
    assert not any(answer.count for answer in [*answers, in_flight])
    await desk.store.answer()
    await settle()
    assert [answer.json["value_received"] for answer in [*answers, in_flight]] == [1_000_000, 0, 0, 0]
    late = desk.submit(kind, 0, raw)
    await settle()
    assert late.json["value_received"] == 0
    assert [answer.count for answer in [*answers, in_flight, late]] == [1] * 5
    assert len(desk.store.groups) == 1


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_an_out_of_order_payment_waits_for_the_write_that_it_comes_behind(kind):
    """The one before it could be lost with its write: then this one would be in order."""
    desk = Desk(HandStore())
    first = desk.submit(kind, 0, raw_of(desk, 0, 8_000_000))
    behind = desk.submit(kind, 0, raw_of(desk, 0, 9_000_000))
    await settle()
    assert (first.count, behind.count) == (0, 0)
    await desk.store.answer(CONFLICT)
    await settle()
    await desk.store.answer()
    await settle()
    assert {first.status, behind.status} <= {200, 400}
    assert (first.count, behind.count) == (1, 1)
    assert sum(answer.json["value_received"] for answer in (first, behind) if answer.status == 200) == 2_000_000


# --- refused and lost writes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [CONFLICT, STALE])
@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_a_refused_write_has_the_payment_judged_again_on_what_the_store_has(kind, status):
    desk = Desk(HandStore())
    answer = desk.submit(kind, 0, raw_of(desk, 0, 9_000_000))
    await settle()
    newer = desk.samples[0].sign(9_500_000)  # another owner took this one meanwhile
    desk.states[outpoint_of(desk, 0)] = ChannelState(1, payment_of(newer))
    await desk.store.answer(status)
    await settle()
    assert answer.count == 0
    (entry,) = desk.store.groups[1]
    assert entry.expected_change_value == 9_500_000
    await desk.store.answer()
    await settle()
    assert (answer.count, answer.body) == (1, body_of(9_000_000, 500_000))


@pytest.mark.parametrize("status", [CONFLICT, STALE])
@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_after_a_few_refused_writes_the_payer_is_asked_to_repeat(kind, status):
    desk = Desk(HandStore())
    answer = desk.submit(kind, 0, raw_of(desk, 0, 9_000_000))
    for _ in range(3 * ATTEMPTS_MAX):
        await settle()
        if desk.store.in_flight:
            await desk.store.answer(status)
    assert (answer.count, answer.status, answer.code) == (1, 503, "owner_moved")
    assert 1 < len(desk.store.groups) <= ATTEMPTS_MAX


@pytest.mark.parametrize("error", [ConnectionGone(), RemoteRefusal(b"no")], ids=["gone", "refused"])
@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_a_lost_write_is_told_and_not_tried_again(kind, error):
    """Judged again it could find itself in the store, and be answered with value 0 though no answer was lost."""
    desk = Desk(HandStore())
    raw = raw_of(desk, 0, 9_000_000)
    answers = [desk.submit(kind, 0, raw), desk.submit(kind, 0, raw), desk.submit(kind, 0, raw_of(desk, 0, 8_000_000))]
    await settle()
    follower = desk.submit(kind, 0, raw_of(desk, 0, 7_000_000))
    await settle()
    await desk.store.fail(error)
    await settle()
    answers.append(follower)
    assert [(answer.count, answer.status, answer.code) for answer in answers] == [(1, 503, "store_unavailable")] * 4
    assert len(desk.store.groups) == 1 and desk.loads == 0


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_a_channel_read_again_while_its_payment_is_queued_is_not_acknowledged(kind):
    """The group in flight is another channel's; what waits in the queue was judged on a loading that is gone."""
    desk = Desk(HandStore())
    desk.submit("future", 1, raw_of(desk, 1, 9_000_000))
    await settle()
    answer = desk.submit(kind, 0, raw_of(desk, 0, 9_000_000))
    await settle()
    desk.table.drop(outpoint_of(desk, 0))
    desk.reload(outpoint_of(desk, 0))
    await desk.store.answer()
    await settle()
    assert answer.count == 0  # judged again, on what was read, and queued
    assert desk.store.in_flight == 1
    await desk.store.answer()
    await settle()
    assert (answer.count, answer.body) == (1, body_of(9_000_000, 1_000_000))


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_interlocks_and_unreadable_channels_are_told(kind):
    desk = Desk(HandStore())
    desk.trouble = "signer_unavailable"
    locked = desk.submit(kind, 0, raw_of(desk, 0, 9_000_000))
    await settle()
    assert (locked.count, locked.status, locked.code) == (1, 503, "signer_unavailable")
    desk.trouble, desk.is_readable = "", False
    desk.table.drop(outpoint_of(desk, 0))
    unread = desk.submit(kind, 0, raw_of(desk, 0, 9_000_000))
    await settle()
    assert (unread.count, unread.status, unread.code) == (1, 503, "store_unavailable")
    assert desk.store.groups == []


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_a_bug_of_ours_is_answered_too(kind):
    desk = Desk(HandStore())
    desk.table.drop(outpoint_of(desk, 0))
    desk.payments._loader = None  # so `odd` raises
    answer = desk.submit(kind, 0, raw_of(desk, 0, 9_000_000))
    await settle()
    assert (answer.count, answer.status, answer.code) == (1, 503, "store_unavailable")
    assert "Internal error" in answer.json["detail"]


# --- links between workers --------------------------------------------------------------------------------------------


@asynchronous
async def test_a_link_that_dies_is_told_and_nothing_is_tried_again():
    """The owner may have taken the payment: judged or forwarded again it would be answered with value 0."""
    desk = Desk(HandStore())
    answers = [desk.submit("forwarded", 0, raw_of(desk, 0, value)) for value in (9_000_000, 8_000_000)]
    await settle()
    desk.link.expire()  # one of them asked before, one after
    answers.append(desk.submit("forwarded", 1, raw_of(desk, 1, 9_000_000)))
    desk.link.connection_lost(None)
    await settle()
    assert [(answer.count, answer.status, answer.code) for answer in answers] == [(1, 503, "owner_moved")] * 3
    assert desk.refused == [] and desk.sent_elsewhere == [] and not desk.link.is_open
    assert len(desk.store.groups) == 1  # what the owner had taken goes on
    await desk.store.answer()
    await settle()
    assert [answer.count for answer in answers] == [1] * 3
    replay = desk.submit("future", 0, raw_of(desk, 0, 8_000_000))
    await settle()
    assert replay.json["value_received"] == 0


@asynchronous
async def test_an_error_from_the_peer_leads_to_the_patient_way():
    """It says that nothing was done: the shard is not the peer's any more."""
    desk = Desk(HandStore())
    desk.table.own([0] * SHARD_COUNT)
    answer = desk.submit("forwarded", 0, raw_of(desk, 0, 9_000_000))
    await settle()
    assert answer.count == 0
    ((request, outpoint),) = desk.refused
    assert outpoint == outpoint_of(desk, 0)
    assert (request.path, request.query) == (desk.samples[0].path, desk.query(raw_of(desk, 0, 9_000_000)))
    assert desk.sent_elsewhere == []  # a forwarded payment is not forwarded on by its own worker
    desk.link.connection_lost(None)
    await settle()
    assert answer.count == 0  # it is the patient way's now


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("future", "forwarded")])
@asynchronous
async def test_what_another_worker_owns_is_sent_there(kind):
    desk = Desk(HandStore())
    desk.table.own([0] * SHARD_COUNT)
    answer = desk.submit(kind, 0, raw_of(desk, 0, 9_000_000))
    await settle()
    ((request, outpoint),) = desk.sent_elsewhere
    assert (answer.count, outpoint) == (0, outpoint_of(desk, 0))
    # Forwarded as it came: the owner, which is this worker again, judges path and query.
    desk.table.own([2] * SHARD_COUNT)
    desk.link.ask(request, outpoint)
    await settle()
    assert desk.store.in_flight == 1 and answer.count == 0
    await desk.store.answer()
    await settle()
    assert (answer.count, answer.status, answer.body) == (1, 200, body_of(9_000_000, 1_000_000))


@asynchronous
async def test_frames_of_one_turn_leave_in_one_piece_and_before_the_link_is_closed():
    written = []
    link = ForwardLink(PAYLOAD_MAX, asyncio.get_running_loop().call_soon, Reply, lambda *_: None, Reply(503, b"gone"))
    link.connection_made(Transport(written.append))
    desk = Desk(HandStore())

    def ask(count):
        for _ in range(count):
            link.ask(desk._future_request("/path", b"payment", Answer()), bytes(36))

    ask(3)
    await settle()
    assert [piece.count(b"/path?payment") for piece in written] == [3]
    ask(1)
    await settle()
    assert [piece.count(b"/path?payment") for piece in written] == [3, 1]
    ask(2)
    link.close()
    await settle()
    assert [piece.count(b"/path?payment") for piece in written] == [3, 1, 2]


@asynchronous
async def test_an_answer_may_take_between_one_and_two_periods():
    """And one that comes after it was given up answers nobody a second time."""
    written = []
    call_soon = asyncio.get_running_loop().call_soon
    link = ForwardLink(PAYLOAD_MAX, call_soon, Reply, lambda *_: None, Reply(503, b"gone"))
    link.connection_made(Transport(written.append))
    desk = Desk(HandStore())

    def ask():
        answer = Answer()
        link.ask(desk._future_request("/path", b"payment", answer), bytes(36))
        return answer

    before = ask()
    link.expire()
    after = ask()
    await settle()
    assert (before.count, after.count) == (0, 0)
    link.expire()
    await settle()
    assert (before.count, before.status, after.count) == (1, 503, 0)
    late = encode_frame(130, 1, (200).to_bytes(2, "little") + bytes(2) + b"late")
    link.data_received(late + encode_frame(130, 2, (200).to_bytes(2, "little") + bytes(2) + b"in time"))
    await settle()
    assert (before.count, before.status) == (1, 503)
    assert (after.count, after.status, after.body) == (1, 200, b"in time")
    link.expire()
    link.expire()
    link.connection_lost(None)
    await settle()
    assert (before.count, after.count) == (1, 1)


@pytest.mark.parametrize(
    "frame",
    [encode_frame(130, 1), encode_frame(130, 1, b"\xc8\0\xff\xff"), b"\0" * 12, encode_frame(130, 1, b"\xc8\0\1\0\xff")],
    ids=["no answer", "location cut off", "no frame", "location not UTF-8"],
)
@asynchronous
async def test_nonsense_from_the_peer_ends_the_link(frame):
    desk = Desk(HandStore())
    answer = Answer()
    desk.link.ask(desk._future_request("/path", b"payment", answer), bytes(36))
    desk.link.data_received(frame)
    assert not desk.link.is_open
    desk.link.connection_lost(None)
    await settle()
    assert answer.count <= 1


# --- batches ----------------------------------------------------------------------------------------------------------


def answers_of(desk, payments):
    answers = [Answer() for _ in payments]
    desk.submit_batch([(outpoint_of(desk, number), raw) for number, raw in payments], answers)
    return answers


@asynchronous
async def test_payments_of_one_channel_in_one_batch_are_judged_in_order_and_written_once():
    desk = Desk(HandStore())
    values = [9_000_000, 8_000_000, 8_500_000, 7_000_000]
    answers = answers_of(desk, [(0, raw_of(desk, 0, value)) for value in values])
    await settle()
    (group,) = desk.store.groups
    assert len(group) == 1 and not any(answer.count for answer in answers)
    await desk.store.answer()
    await settle()
    assert [answer.status for answer in answers] == [200, 200, 400, 200]
    assert [answers[i].json["value_received"] for i in (0, 1, 3)] == [1_000_000] * 3
    assert answers[2].code == "out_of_order"


@asynchronous
async def test_a_payment_twice_in_one_batch_counts_once_and_both_wait_for_the_write():
    desk = Desk(HandStore())
    raw = raw_of(desk, 0, 9_000_000)
    answers = answers_of(desk, [(0, raw), (1, raw_of(desk, 1, 9_000_000)), (0, raw)])
    await settle()
    assert not any(answer.count for answer in answers)
    await desk.store.answer()
    await settle()
    received = [(answer.count, answer.json["value_received"]) for answer in answers]
    assert received == [(1, 1_000_000), (1, 1_000_000), (1, 0)]


@asynchronous
async def test_each_item_of_a_batch_has_its_own_answer():
    """Accepted, refused by form, by the channel, unknown, and one whose write is refused: each in its place."""
    desk = Desk(HandStore())
    unknown = bytes(36)
    good = [raw_of(desk, number, 9_000_000 + number) for number in range(3)]
    dust = bytes((1,)) + bytes(7) + good[0][8:]
    payments = [
        (outpoint_of(desk, 0), good[0]),
        (outpoint_of(desk, 0), dust),
        (unknown, good[0]),
        (outpoint_of(desk, 1), good[0]),
        (outpoint_of(desk, 1), good[1]),
        (outpoint_of(desk, 2), b""),
        (outpoint_of(desk, 2), good[2]),
    ]
    answers = [Answer() for _ in payments]
    desk.submit_batch(payments, answers)
    await settle()
    await desk.store.answer(OK, CONFLICT, OK)
    await settle()
    await desk.store.answer()
    await settle()
    expected = [200, "dust_change", "no_such_channel", "bad_signature", 200, "invalid_payment", 200]
    assert [answer.code or answer.status for answer in answers] == expected
    assert [answers[place].body for place in (0, 4, 6)] == [body_of(9_000_000 + number, 1_000_000 - number) for number in range(3)]


@pytest.mark.parametrize("cut", [1, 35, 36, 37, 60])
@asynchronous
async def test_a_batch_that_is_cut_off_judges_nothing(cut):
    desk = Desk(HandStore())
    raw = raw_of(desk, 0, 9_000_000)
    item = outpoint_of(desk, 0) + bytes((len(raw),)) + raw
    done = []
    with pytest.raises(ValueError, match="cut off"):
        Batch(item + item[:cut], bytes.hex, done.append, LATER).submit(desk.intake)
    await settle()
    assert (done, desk.store.groups) == ([], [])
    assert desk.table.is_durable(outpoint_of(desk, 0))


@asynchronous
async def test_a_batch_has_its_limits():
    desk = Desk(HandStore())
    done = []
    item = bytes(36) + b"\0"
    Batch(b"", bytes.hex, done.append, LATER).submit(desk.intake)
    assert done == [b""]
    Batch(item * BATCH_PAYMENTS_MAX, bytes.hex, done.append, LATER).submit(desk.intake)
    for _ in range(BATCH_PAYMENTS_MAX // BATCH_SLICE):
        await settle()
    assert len(done) == 2
    with pytest.raises(ValueError, match="more than"):
        Batch(item * (BATCH_PAYMENTS_MAX + 1), bytes.hex, done.append, LATER).submit(desk.intake)
    assert len(done) == 2
    assert BATCH_BYTES_MAX == BATCH_PAYMENTS_MAX * (37 + 81)


@asynchronous
async def test_a_batch_is_judged_in_slices_with_a_turn_of_the_loop_between():
    desk = Desk(HandStore())
    answers = [Answer() for _ in range(3 * BATCH_SLICE)]
    payments = [(outpoint_of(desk, 0), raw_of(desk, 0, 9_000_000 - number)) for number in range(3 * BATCH_SLICE)]
    desk.submit_batch(payments, answers)
    left = []
    for _ in range(3):
        left.append(int.from_bytes(desk.table.newest_payment(outpoint_of(desk, 0))[:8], "little"))
        await asyncio.sleep(0)
    assert left == [9_000_001 - BATCH_SLICE * slices for slices in (1, 2, 3)]
    while any(answer.count == 0 for answer in answers):
        await settle()
        await desk.store.answer()
    assert [answer.status for answer in answers] == [200] * len(answers)
    assert sum(answer.json["value_received"] for answer in answers) == FUNDING - left[-1]


@asynchronous
async def test_after_some_bad_signatures_the_rest_of_a_batch_is_not_looked_at():
    desk = Desk(HandStore())
    junk = raw_of(desk, 1, 9_000_000)
    answers = [Answer() for _ in range(BATCH_FAILURES_MAX + 2)]
    payments = [(outpoint_of(desk, 0), junk)] * (BATCH_FAILURES_MAX + 1) + [(outpoint_of(desk, 0), raw_of(desk, 0, 9_000_000))]
    desk.submit_batch(payments, answers)
    await settle()
    assert [answer.count for answer in answers] == [1] * len(answers)
    assert [answer.code for answer in answers] == ["bad_signature"] * BATCH_FAILURES_MAX + ["too_many_failures"] * 2
    good = desk.submit("batch", 0, raw_of(desk, 0, 9_000_000))
    await settle()
    await desk.store.answer()
    await settle()
    assert good.status == 200


@asynchronous
async def test_unknown_channels_of_a_batch_are_looked_up_for_one_slice():
    desk, held = Desk(HandStore()), []
    desk.payments._loader = SimpleNamespace(want=lambda *wanted: held.append(wanted))
    answers = [Answer() for _ in range(5 * BATCH_SLICE)]
    raw = raw_of(desk, 0, 9_000_000)
    desk.submit_batch([(number.to_bytes(36, "big"), raw) for number in range(len(answers))], answers)
    for _ in range(5):
        await settle()
    assert len(held) == BATCH_SLICE
    while held:
        desk._load(*held.pop(0))
    for _ in range(5):
        await settle()
    assert [answer.count for answer in answers] == [1] * len(answers)
    codes = [answer.code for answer in answers]
    assert codes == ["no_such_channel"] * BATCH_SLICE + ["too_many_failures"] * (4 * BATCH_SLICE)
    assert desk.loads == BATCH_SLICE


@asynchronous
async def test_a_batch_waits_for_the_channels_of_a_slice_to_be_read_and_goes_on():
    desk = Desk(HandStore())
    for number in range(2):
        desk.table.drop(outpoint_of(desk, number))
    answers = [Answer() for _ in range(3 * BATCH_SLICE)]
    payments = [(outpoint_of(desk, at % 2), raw_of(desk, at % 2, 9_000_000 - at)) for at in range(len(answers))]
    desk.submit_batch(payments, answers)
    assert [desk.loads, desk.table.is_loaded(outpoint_of(desk, 0))] == [0, False]
    while any(answer.count == 0 for answer in answers):
        await settle()
        await desk.store.answer()
    assert [answer.status for answer in answers] == [200] * len(answers)
    assert desk.loads == BATCH_SLICE


# --- all of it, at random ---------------------------------------------------------------------------------------------

CHANNELS, VALUES = 3, 7
STEP = 100_000


class ModelStore:
    """A store that keeps what it writes. The test says when the group in flight is answered, and how."""

    def __init__(self):
        self.left, self.states, self._flying = {}, {}, None

    async def commit(self, payload):
        assert self._flying is None, "two groups are in flight"
        self._flying = (decode_commit(payload), asyncio.get_running_loop().create_future())
        return await self._flying[1]

    def answer(self, how, refuse):
        """how: "written"; "lost" before or "lost after" the write. refuse: every which entry is refused without a reason."""
        if self._flying is None:
            return
        (entries, future), self._flying = self._flying, None
        statuses = []
        for place, entry in enumerate(entries):
            if refuse and place % refuse == 0:
                statuses.append((EntryStatus.STALE_EPOCH, EntryStatus.CONFLICT)[place % 2])
            elif entry.expected_change_value != self.left[entry.outpoint]:
                statuses.append(EntryStatus.CONFLICT)
            else:
                statuses.append(EntryStatus.OK)
                if how != "lost":
                    state = ChannelState.parse(entry.state)
                    assert state.payment.change_value <= self.left[entry.outpoint]
                    self.left[entry.outpoint], self.states[entry.outpoint] = state.payment.change_value, state
        if how == "written":
            future.set_result(bytes(statuses))
        else:
            future.set_exception(ConnectionGone())


PAYMENTS = st.tuples(st.just("pay"), st.sampled_from(KINDS), st.integers(0, CHANNELS - 1), st.integers(0, VALUES - 1))
BATCHES = st.tuples(
    st.just("batch"), st.lists(st.tuples(st.integers(0, CHANNELS - 1), st.integers(0, VALUES - 1)), min_size=2, max_size=6)
)
STORE = st.tuples(
    st.just("store"), st.sampled_from(["written", "written", "written", "lost", "lost after"]), st.sampled_from([0, 0, 0, 1, 2])
)
STEPS = st.lists(
    st.one_of(
        PAYMENTS,
        PAYMENTS,
        PAYMENTS,
        BATCHES,
        STORE,
        STORE,
        st.tuples(st.just("turn"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["drop", "reload"]), st.integers(0, CHANNELS - 1)),
        st.tuples(st.just("epoch"), st.integers(1, 3)),
    ),
    min_size=5,
    max_size=60,
)

_signed: dict[tuple[int, int], bytes] = {}


def signed(desk, number, step):
    """The payment of one channel that leaves `step` steps less than the opening; signed once."""
    if (number, step) not in _signed:
        _signed[number, step] = raw_of(desk, number, FUNDING - (step + 1) * STEP)
    return _signed[number, step]


async def play(steps):
    store = ModelStore()
    desk = Desk(store, CHANNELS, "random")
    desk.states = store.states
    for sample in desk.samples:
        store.left[sample.terms.outpoint] = FUNDING
    histories = [History(f"channel {number}", FUNDING) for number in range(CHANNELS)]
    answers = []

    def expect(number, step):
        left, outpoint = FUNDING - (step + 1) * STEP, outpoint_of(desk, number)

        def note(answer):
            assert answer.count == 1
            if answer.status == 200:
                assert store.left[outpoint] <= left, "acknowledged, and not durable"
                body = answer.json
                operation = Operation(left, Outcome.ACKNOWLEDGED, body["value_received"], body["channel_value_left"])
            elif answer.status == 503:
                operation = Operation(left, Outcome.UNKNOWN, lost=1)
            else:
                operation = Operation(left, Outcome.REFUSED, code=answer.code)
                assert answer.code == "out_of_order"
            histories[number].operations.append(operation)

        answer = Answer(note)
        answers.append(answer)
        return answer

    for step in steps:
        match step:
            case ("pay", kind, number, value):
                answer = expect(number, value)
                sample = desk.samples[number]
                raw = signed(desk, number, value)
                getattr(desk, f"_submit_{kind}")(sample.terms.outpoint, sample.path, raw, answer)
            case ("batch", items):
                payments = [(outpoint_of(desk, number), signed(desk, number, value)) for number, value in items]
                desk.submit_batch(payments, [expect(*item) for item in items])
            case ("store", how, refuse):
                store.answer(how, refuse)
            case ("turn", turns):
                await settle(turns)
            case ("drop", number):
                desk.table.drop(outpoint_of(desk, number))
            case ("reload", number):
                desk.table.drop(outpoint_of(desk, number))
                desk.reload(outpoint_of(desk, number))
            case ("epoch", epoch):
                desk.table.own([epoch] * SHARD_COUNT)
        await settle(1)
    for _ in range(40):
        store.answer("written", 0)
        await settle(6)
    assert [answer.count for answer in answers] == [1] * len(answers)
    assert desk.committer.queue.waiting == 0
    for number, history in enumerate(histories):
        history.final_left = store.left[outpoint_of(desk, number)]
    return check_all(histories)


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_whatever_happens_acknowledged_intervals_tile_and_are_durable(steps):
    verdict = asyncio.run(asyncio.wait_for(play(steps), 60))
    assert verdict.problems == []


def test_the_random_play_reaches_what_it_is_about():
    """A fixed play, so that the above does not pass because nothing happens."""
    steps = [step for place, kind in enumerate(KINDS) for step in (("pay", kind, 0, place), ("turn", 3), ("store", "written", 0))]
    steps += [("turn", 3), ("store", "written", 0), ("batch", [(1, 0), (1, 1), (2, 0), (1, 1)]), ("turn", 3)]
    steps += [("store", "lost after", 0), ("pay", "direct", 1, 1)]
    verdict = asyncio.run(play(steps))
    assert verdict.problems == []
    assert (verdict.claimed, verdict.gaps) == (len(KINDS), 2)


def test_the_table_takes_no_other_shard_count():
    with pytest.raises(ValueError):
        ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD).own([1])
