"""Aim: reading channels serves everybody who asked, and enters nothing that another owner may have changed meanwhile.
Method: the real table and loader, and a store whose answers the test gives by hand.
"""

import asyncio

import pytest

from paychan._fast.channel import ChannelTable
from paychan.core.channel import ChannelState, Phase
from paychan.core.errors import Unavailable
from paychan.core.payment import Payment
from paychan.rpc.connection import ConnectionGone, RemoteRefusal
from paychan.rpc.store_messages import LOAD_MAX, Stored
from paychan.server.shards.loading import Loaded, Loader
from paychan.server.shards.ownership import NotOwner
from tests.differential.channels import SETTLEMENT_PERIOD, SHARD_COUNT, make_sample, own_all
from tests.unit.doors import asynchronous, settle


def stored(sample) -> Stored:
    opening = sample.opening
    payment = Payment(opening.change_value, opening.signature, opening.sighash_type)
    return Stored(sample.terms.serialize(), ChannelState(Phase.OPEN, payment).serialize(), b"")


class Rig:
    """A loader for some channels that the store has, and the frames that it sent."""

    def __init__(self, count=3):
        self.table = own_all(ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD))
        self.loader = Loader(self.table, SHARD_COUNT, self)
        self.samples = [make_sample(f"loading {number}") for number in range(count)]
        self.outpoints = [sample.terms.outpoint for sample in self.samples]
        self.has = {sample.terms.outpoint: stored(sample) for sample in self.samples}
        self.frames, self.error, self.gate = [], None, None

    async def load_many(self, outpoints):
        self.frames.append(outpoints)
        if self.gate is not None:
            await self.gate.wait()
        if self.error:
            raise self.error
        return [self.has.get(outpoint) for outpoint in outpoints]

    def want(self, outpoint):
        outcomes = []
        self.loader.want(outpoint, outcomes.append)
        return outcomes

    async def begin_load(self):
        """Begin to load the first channel, whose reading waits for the gate, and return the task."""
        self.gate = asyncio.Event()
        load = asyncio.ensure_future(self.loader.load(self.outpoints[0]))
        await settle()
        return load


@asynchronous
async def test_what_is_asked_for_together_is_read_in_one_frame():
    rig = Rig()
    waiting = [rig.want(outpoint) for outpoint in rig.outpoints]
    await settle()
    assert waiting == [[Loaded.FOUND]] * 3
    assert rig.frames == [rig.outpoints]
    assert all(rig.table.is_loaded(outpoint) for outpoint in rig.outpoints)


@asynchronous
async def test_who_asks_for_a_channel_that_is_being_read_shares_the_answer():
    rig = Rig(1)
    rig.gate = asyncio.Event()
    waiting = [rig.want(rig.outpoints[0])]
    await settle()
    waiting.append(rig.want(rig.outpoints[0]))
    rig.gate.set()
    await settle()
    assert waiting == [[Loaded.FOUND]] * 2
    assert len(rig.frames) == 1


@asynchronous
async def test_a_frame_has_at_most_the_stores_limit():
    rig = Rig(0)
    waiting = [rig.want(number.to_bytes(36, "big")) for number in range(LOAD_MAX + 1)]
    await settle(40)
    assert [len(frame) for frame in rig.frames] == [LOAD_MAX, 1]
    assert waiting == [[Loaded.MISSING]] * (LOAD_MAX + 1)


@asynchronous
async def test_after_an_unanswered_reading_the_next_one_works():
    for error in (ConnectionGone(), RemoteRefusal(b"the store cannot read this")):
        rig = Rig(1)
        rig.error = error
        first = rig.want(rig.outpoints[0])
        await settle()
        rig.error = None
        second = rig.want(rig.outpoints[0])
        await settle()
        assert (first, second) == ([Loaded.FAILED], [Loaded.FOUND])


@pytest.mark.parametrize("record", ["terms", "state"])
@asynchronous
async def test_a_damaged_channel_keeps_no_other_waiting(record, caplog):
    rig = Rig(3)
    good = rig.has[rig.outpoints[1]]
    cut = {name: getattr(good, name)[: -1 if name == record else None] for name in ("terms", "state")}
    rig.has[rig.outpoints[1]] = Stored(**cut, settlement=b"")
    waiting = [rig.want(outpoint) for outpoint in rig.outpoints]
    await settle()
    assert waiting == [[Loaded.FOUND], [Loaded.FAILED], [Loaded.FOUND]]
    assert not rig.table.is_loaded(rig.outpoints[1])
    assert "damaged" in caplog.text
    with pytest.raises(Unavailable):
        await rig.loader.load(rig.outpoints[1])
    assert await rig.loader.load(rig.outpoints[2]) is True


@asynchronous
async def test_what_changed_hands_during_the_reading_is_not_entered():
    for epoch in (0, 2):
        rig = Rig(1)
        rig.gate = asyncio.Event()
        waiting = rig.want(rig.outpoints[0])
        await settle()
        own_all(rig.table, epoch=epoch)
        rig.gate.set()
        await settle()
        assert waiting == [Loaded.MOVED]
        assert not rig.table.is_loaded(rig.outpoints[0])


@asynchronous
async def test_a_channel_that_was_entered_meanwhile_stays_as_it_is():
    rig = Rig(1)
    rig.gate = asyncio.Event()
    waiting = rig.want(rig.outpoints[0])
    await settle()
    sample = rig.samples[0]
    newer = sample.sign(5_000_000)
    sample.load(rig.table, newest=newer)
    rig.gate.set()
    await settle()
    assert waiting == [Loaded.FOUND]
    assert rig.table.newest_payment(rig.outpoints[0]) == newer.raw


@asynchronous
async def test_load_tells_how_it_ended():
    rig = Rig(1)
    assert await rig.loader.load(rig.outpoints[0]) is True
    assert await rig.loader.load(rig.outpoints[0]) is True
    assert len(rig.frames) == 1
    assert await rig.loader.load(bytes(36)) is False
    rig.error = ConnectionGone()
    with pytest.raises(Unavailable) as caught:
        await rig.loader.load(b"\1" * 36)
    assert caught.value.code == "store_unavailable"
    own_all(rig.table, epoch=0)
    with pytest.raises(NotOwner):
        await rig.loader.load(rig.outpoints[0])


@asynchronous
async def test_a_channel_that_moves_while_load_waits_is_not_ours():
    rig = Rig(1)
    load = await rig.begin_load()
    own_all(rig.table, epoch=2)
    rig.gate.set()
    with pytest.raises(NotOwner):
        await load


@asynchronous
async def test_a_waiter_that_gives_up_disturbs_nobody():
    rig = Rig(1)
    load = await rig.begin_load()
    load.cancel()
    other = rig.want(rig.outpoints[0])
    rig.gate.set()
    await settle()
    assert other == [Loaded.FOUND]
