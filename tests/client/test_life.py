"""Aim: a channel's life through both faces of the client library. Method: the real three processes in debug mode."""

import asyncio
import time
from pathlib import Path

import pytest

from paychan.client import (
    AsyncChannel,
    Channel,
    ChannelBusy,
    ChannelClosed,
    InvalidAmount,
    PayerPhase,
    Refused,
    StateBehindServer,
    Unreachable,
    WrongNetwork,
    create_key,
)
from paychan.core.network import LIVE, TEST
from paychan.core.units import DUST_LIMIT
from tests.client.payer_system import QUICK, new_channel
from tests.ports import free_port
from tests.settled import settled_change
from tests.system import CHANGE_ADDRESS, WEEK, running


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with running(tmp_path_factory.mktemp("system")) as found:
        yield found


def settled(system, channel, txid: str) -> int:
    """Return the change in the broadcast settlement, judged independently."""
    raw = system.broadcast()[txid]
    assert channel.check_settlement(raw) == (change := settled_change(raw, txid, channel.record.terms))
    return change


def test_a_channel_lives_and_what_was_paid_is_what_is_settled(system, tmp_path):
    with new_channel(tmp_path, system.port) as channel:
        price = channel.record.agreement.open_price
        outcomes = [channel.pay(amount) for amount in (5, 1, 1000)]
        assert [outcome.paid_value for outcome in outcomes] == [price + 5, price + 6, price + 1006]
        assert channel.open().amount == 0  # again: the newest payment once more
        end = channel.close_channel()
        assert end.status == "closed" and channel.record.phase is PayerPhase.CLOSED
        assert settled(system, channel, end.settlement_txid) == channel.record.change_value
        assert channel.close_channel() == end
        for refused in (channel.open, lambda: channel.pay(1)):
            with pytest.raises(ChannelClosed):
                refused()


def test_paying_everything_closes_the_channel(system, tmp_path):
    with new_channel(tmp_path, system.port) as channel:
        left = channel.record.change_value
        for amount in (0, -1, True, left + 1, left - 1, left - DUST_LIMIT + 1):
            with pytest.raises(InvalidAmount):
                channel.pay(amount)
        assert channel.pay(left - DUST_LIMIT).change_value == DUST_LIMIT
        outcome = channel.pay(DUST_LIMIT)
        assert (outcome.status, outcome.change_value) == ("closed", 0)
        assert settled(system, channel, outcome.settlement_txid) == 0


def test_asyncio_face(system, tmp_path):
    async def live() -> None:
        create_key(tmp_path / "key")
        exp_time = int(time.time()) + WEEK
        url = f"http://127.0.0.1:{system.port}/v1/"
        made = await AsyncChannel.create(tmp_path / "c.json", url, tmp_path / "key", TEST, exp_time, CHANGE_ADDRESS)
        async with made as channel:
            await channel.fund_debug()
            await channel.open(100_000)
            await asyncio.gather(*(channel.pay(1) for _ in range(20)))  # they queue up
            assert channel.record.paid_value == 100_020
            payment = asyncio.create_task(channel.pay(7))
            await asyncio.sleep(0)
            payment.cancel()
            with pytest.raises(asyncio.CancelledError):
                await payment
            recovered = (await channel.pay(3)).recovered
            assert channel.record.paid_value == 100_023 + recovered and recovered in (0, 7)
            end = await channel.close_channel()
            assert settled(system, channel, end.settlement_txid) == channel.record.change_value

    asyncio.run(live())


def test_a_second_process_is_refused_and_the_lock_ends_with_its_holder(system, tmp_path):
    with new_channel(tmp_path, system.port) as channel:
        with pytest.raises(ChannelBusy):
            Channel(tmp_path / "c.json")
        (tmp_path / "alias.json").symlink_to("c.json")
        with pytest.raises(ChannelBusy):
            Channel(tmp_path / "alias.json")
        channel.pay(1)
    with Channel(tmp_path / "c.json") as channel:
        channel.pay(1)


def test_an_old_copy_of_the_state_is_noticed(system, tmp_path):
    path = tmp_path / "c.json"
    with new_channel(tmp_path, system.port) as channel:
        old = path.read_bytes()
        channel.pay(100)
        newest = path.read_bytes()
    path.write_bytes(old)
    with Channel(path) as channel:
        with pytest.raises(StateBehindServer, match="money is safe"):
            channel.pay(99)
        signed = channel.record.signed
        with pytest.raises(StateBehindServer):
            channel.pay(1)
        channel.resume()
        with pytest.raises(StateBehindServer):  # the pending payment comes first, and is refused again
            channel.pay(1)
        assert channel.record.signed == signed
    path.write_bytes(newest)
    with Channel(path) as channel:
        assert channel.pay(1).paid_value == channel.record.agreement.open_price + 101


def test_an_old_copy_that_pays_the_same_again_is_noticed_too(system, tmp_path):
    path = tmp_path / "c.json"
    with new_channel(tmp_path, system.port) as channel:
        old = path.read_bytes()
        channel.pay(100)
    for amount in (100, 130):
        path.write_bytes(old)
        with Channel(path) as channel:
            with pytest.raises(StateBehindServer, match="brought it only"):
                channel.pay(amount)
            channel.resume()  # now the file holds the server's newest payment
            assert channel.pay(1).amount == 1
            assert channel.close_channel().status == "closed" if amount == 130 else True
        if amount == 100:
            old = path.read_bytes()
            with Channel(path) as channel:
                channel.pay(40)


def test_a_channel_that_another_copy_closed(system, tmp_path):
    path = tmp_path / "c.json"
    with new_channel(tmp_path, system.port) as channel:
        copy = path.read_bytes()
        end = channel.close_channel()
    path.write_bytes(copy)
    with Channel(path) as channel:
        with pytest.raises(ChannelClosed, match=end.settlement_txid):
            channel.pay(1)
        assert channel.record.paid_value == end.paid_value and channel.record.phase is PayerPhase.CLOSED
    path.write_bytes(copy)
    with Channel(path) as channel:
        assert channel.close_channel().settlement_txid == end.settlement_txid


def test_a_dearer_opening_is_signed_only_after_the_cheaper_was_refused(system, tmp_path):
    with new_channel(tmp_path, system.port, is_open=False) as channel:
        price = channel.record.agreement.open_price
        with pytest.raises(InvalidAmount):
            channel.open(price - 1)
        agreed = channel.record.agreement
        object.__setattr__(agreed, "open_price", 1000)  # as if the server had raised its price since
        with pytest.raises(Refused) as refusal:
            channel.open(1000)
        assert refusal.value.code == "open_price_short"
        assert channel.open(price).paid_value == price


def test_the_wrong_network_and_an_absent_server_leave_no_state(system, tmp_path):
    create_key(tmp_path / "key")
    exp_time = int(time.time()) + WEEK
    live_address = "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"

    def create(port: int, network, address: str, expires: int = exp_time) -> Channel:
        return Channel.create(tmp_path / "c.json", f"http://127.0.0.1:{port}", tmp_path / "key", network, expires, address)

    with pytest.raises(WrongNetwork, match="is on test, not on live"):
        create(system.port, LIVE, live_address)
    with pytest.raises(Refused) as refusal:
        create(system.port, TEST, CHANGE_ADDRESS, int(time.time()) + 60)
    assert refusal.value.code == "exp_time_too_soon"
    with pytest.raises(Unreachable):
        Channel.create(
            tmp_path / "c.json",
            f"http://127.0.0.1:{free_port()}",
            tmp_path / "key",
            TEST,
            exp_time,
            CHANGE_ADDRESS,
            QUICK,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_an_absent_server_is_not_an_unknown_outcome(system, tmp_path):
    with new_channel(tmp_path, system.port, policy=QUICK) as channel:
        right = channel._connection._server
        channel._connection.close()
        channel._connection._server = type(right)(False, "127.0.0.1", free_port(), "")
        with pytest.raises(Unreachable):
            channel.pay(5)
        channel._connection._server = right
        assert channel.record.pending_value == 5
        assert channel.pay(1).recovered == 5


def test_files_are_private(system, tmp_path):
    with new_channel(tmp_path, system.port):
        pass
    modes = {path.name: path.stat().st_mode & 0o777 for path in Path(tmp_path).iterdir()}
    assert modes == {"c.json": 0o600, "c.json.lock": 0o600, "c.key": 0o600}
