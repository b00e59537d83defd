"""Aim: whatever way a sale comes in, it is answered when the store has said so, once; one whose outcome is unknown is 503, one that
was judged on what did not become durable is judged again. Method: the three kinds of sale requests on the real intake and rules, a
store in the test's hands."""

import asyncio
import struct
from dataclasses import replace

import orjson
import pytest

from paychan._fast.frame import encode_frame
from paychan._fast.sale import SALES_SLICE, FutureSale, SaleBatch
from paychan.core.channel import ChannelState
from paychan.core.errors import Unavailable
from paychan.core.sales import Sales
from paychan.rpc.connection import ConnectionGone
from paychan.server.protocol.replies import json_reply, problem
from tests.unit.doors import Answer, Desk, asynchronous, settle
from tests.unit.server.shards.test_committer import CONFLICT, HandStore

SELL, SETTLE, PROVE = 1, 2, 3
KINDS = ("future", "forwarded", "batch")
FORM = struct.Struct("<B36s16sQQII")


def sale(desk, number=0, key=b"k", amount=100, kind=SELL, of=0, paid=None, attempt=0):
    """Return a sale's binary form; paid: the change value of a payment that comes with it."""
    outpoint = desk.samples[number].terms.outpoint
    raw = b"" if paid is None else desk.samples[number].sign(paid).raw
    return FORM.pack(kind, outpoint, key * 16, amount, of, 0, attempt) + raw


def submit(desk, kind, raw):
    answer = Answer()
    if kind == "batch":
        later = asyncio.get_running_loop().call_soon
        SaleBatch([raw], lambda bodies: answer.give(orjson.loads(bodies[0])["status"], bodies[0]), later).submit(desk.intake)
        return answer
    future = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: answer.give(done.result().status, done.result().body))
    request = FutureSale(desk.intake, raw, future)
    if kind == "future":
        desk.intake.submit(request)
    else:
        desk.link.ask(request, raw[1:37])
    return answer


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_nothing_is_answered_before_the_commit_returned(kind):
    desk = Desk(HandStore())
    answer = submit(desk, kind, sale(desk, paid=9_000_000))
    again = submit(desk, kind, sale(desk, paid=9_000_000))
    await settle()
    assert desk.store.in_flight == 1 and (answer.count, again.count) == (0, 0)
    await desk.store.answer()
    await settle()
    assert (answer.count, answer.status, again.count, again.status) == (1, 200, 1, 200)
    told = {"number": 1, "asked": 100, "amount": 100, "until": 0}
    assert answer.json == {
        "status": 200, "repeated": False, "purchase": told, "value_received": 1_000_000, "received": 1_000_000, "spent": 100,
        "credit": 999_900, "channel_value_left": 9_000_000,
    }  # fmt: skip
    assert again.json == {**answer.json, "value_received": 0, "repeated": True}


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_a_lost_write_is_unknown_and_the_same_again_charges_once(kind):
    desk = Desk(HandStore())
    raw = sale(desk, paid=9_000_000)
    answer = submit(desk, kind, raw)
    await settle()
    await desk.store.fail(ConnectionGone())
    await settle()
    assert (answer.status, answer.code) == (503, "store_unavailable")
    assert not desk.table.is_loaded(raw[1:37])
    again = submit(desk, kind, raw)  # read again, as it was
    await settle()
    await desk.store.answer()
    await settle()
    assert (again.status, again.json["spent"]) == (200, 100)


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_a_conflict_is_judged_again_on_what_is_durable(kind):
    """Another worker has sold on the channel meanwhile, and nearly all of its credit."""
    desk = Desk(HandStore())
    outpoint = desk.samples[0].terms.outpoint
    first = submit(desk, "future", sale(desk, key=b"f", paid=9_999_000))
    await settle()
    await desk.store.answer()
    await settle()
    assert first.status == 200
    answer = submit(desk, kind, sale(desk, key=b"g", amount=900))
    await settle()
    sold = submit(desk, "future", sale(desk, key=b"g", amount=900))
    state = ChannelState.parse(desk.store.groups[0][0].state)
    desk.states[outpoint] = replace(state, sales=Sales(950, 7))
    await desk.store.answer(CONFLICT)
    await settle(30)
    assert {answer.code, sold.code} == {"insufficient_credit"} and answer.status == 402
    assert (answer.json["missing"], answer.json["required"]) == (850, 1850)


@asynchronous
async def test_a_refusal_that_was_judged_on_what_is_not_durable_waits():
    desk = Desk(HandStore())
    submit(desk, "future", sale(desk, key=b"f", amount=1000, paid=9_999_000))
    refused = submit(desk, "future", sale(desk, key=b"g", amount=1))
    await settle()
    assert refused.count == 0
    await desk.store.answer()
    await settle()
    assert refused.code == "insufficient_credit"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "raw",
    [b"", b"\1" * 76, b"\0" + bytes(84), b"\5" + bytes(84), b"\3" + bytes(76), b"\2" + bytes(84), b"\1" + bytes(74) + b"\x80\0"],
)
@asynchronous
async def test_what_is_no_sale_is_refused(kind, raw):
    """Too short, of no kind, a proof without a payment, a settlement with one, an attempt of more than 23 bits."""
    desk = Desk(HandStore())
    answer = submit(desk, kind, raw)
    await settle()
    assert (answer.count, answer.status, answer.code) == (1, 400, "invalid_sale")


@asynchronous
async def test_any_bytes_in_a_frame_are_answered():
    desk = Desk(HandStore())
    for size in (0, 1, 76, 77, 94, 4096):
        desk.owner.data_received(encode_frame(3, 7, b"\1" * size))
    await settle()
    assert desk.store.in_flight == 0 and desk.owner.is_open  # what has the form of a sale asks for a channel that is not there


@asynchronous
async def test_another_workers_channel_is_sold_on_by_its_owner():
    desk = Desk(HandStore())
    desk.table.own([0] * desk.table.shard_count)
    raw = sale(desk)
    answer = submit(desk, "batch", raw)
    ((request, outpoint),) = desk.sent_elsewhere
    assert answer.count == 0 and request.is_sale and bytes.fromhex(request.query) == raw and outpoint == raw[1:37]
    submit(desk, "forwarded", raw)
    await settle()
    assert desk.refused[0][1] == raw[1:37]  # this worker is not the owner, either


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_who_has_signed_is_told_by_the_books_and_nobody_else(kind):
    desk = Desk(HandStore())
    asked = []

    async def snapshot(outpoint):
        asked.append(outpoint)
        return json_reply(200, {"status": 200})

    desk.payments._books.snapshot = snapshot
    raw = sale(desk, kind=PROVE, paid=10_000_000)
    answer = submit(desk, kind, raw)
    await settle()
    assert (answer.status, asked) == (200, [raw[1:37]])
    forged = submit(desk, kind, raw[:-2] + bytes([raw[-2] ^ 1]) + raw[-1:])
    await settle()
    assert forged.status == 400 and forged.code in ("bad_signature", "invalid_der", "high_s") and len(asked) == 1


@asynchronous
async def test_many_are_judged_in_slices_and_answered_in_order():
    desk = Desk(HandStore())
    raws = [sale(desk, number % 3, bytes([number]), 1, paid=9_000_000 - number) for number in range(SALES_SLICE + 9)]
    got = []
    SaleBatch(raws, got.append, asyncio.get_running_loop().call_soon).submit(desk.intake)
    assert desk.committer.queue.waiting == SALES_SLICE
    for _ in range(6):
        await settle()
        if desk.store.in_flight:
            await desk.store.answer()
    await settle()
    (bodies,) = got
    assert [orjson.loads(body)["channel_value_left"] for body in bodies] == [9_000_000 - number for number in range(len(raws))]


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_while_no_money_may_come_what_was_received_is_still_sold_for(kind):
    desk = Desk(HandStore())

    async def asked(raw):
        answer = submit(desk, kind, raw)
        await settle()
        if desk.store.in_flight:
            await desk.store.answer()
            await settle()
        return answer.status, answer.code if answer.status != 200 else answer.json["spent"]

    assert await asked(sale(desk, paid=9_000_000)) == (200, 100)
    desk.intake.no_money = problem(Unavailable("too_much_unsettled"))
    assert await asked(sale(desk, key=b"g", paid=8_000_000)) == (503, "too_much_unsettled")
    assert await asked(sale(desk, key=b"g")) == (200, 200)
    assert await asked(sale(desk, kind=SETTLE, of=1, amount=40)) == (200, 140)
    desk.intake.no_money = None
    assert await asked(sale(desk, key=b"h", paid=8_000_000)) == (200, 240)
