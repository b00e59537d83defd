"""Aim: with two workers every channel is served right on every connection, also while the server reloads. Method: a real
system; SIGHUP to the server's main process, which replaces each worker by a new one."""

import asyncio
import itertools
import os
import signal

import pytest

from paychan.core.sharding import shard_of
from paychan.rpc.connection import Address, FrameConnection, listen
from paychan.server.doors.peers import PAYLOAD_MAX, encode_reply
from paychan.server.protocol.replies import Reply
from paychan.server.worker import LOOK_AGAIN_SECONDS
from tests.campaign.fencing import SHARDS, Rogue
from tests.campaign.load import Account, Load, PatientClient
from tests.system import System, running, wait_until
from tests.tiling import Outcome, check_all

CHANNELS = 16
CONNECTIONS = 8
RELOAD_SECONDS_MAX = 30.0


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with running(tmp_path_factory.mktemp("reload"), workers=2) as system:
        yield system


def reload(system: System) -> None:
    """Have every worker replaced, and return when the new ones own all shards and the old ones are gone."""
    old = set(system.worker_pids())
    assert len(old) == 2
    os.kill(system.child_pid("server"), signal.SIGHUP)

    def is_done() -> bool:
        now = set(system.worker_pids())
        return len(now) == 2 and not now & old and system.ready_workers() == 2

    wait_until(is_done, RELOAD_SECONDS_MAX, "the reload")


def pay_everywhere(system: System, accounts: list[Account]) -> None:
    """Pay on each channel over fresh connections, some of which reach the channel's owner and some do not."""
    for _ in range(CONNECTIONS):
        client = PatientClient(system.port)
        for account in accounts:
            operation = account.pay(client, 7)
            assert (operation.outcome, operation.received, operation.lost) == (Outcome.ACKNOWLEDGED, 7, 0), account.name
        client.close()


def close_and_judge(system: System, accounts: list[Account]) -> list[str]:
    client = PatientClient(system.port)
    for account in accounts:
        account.close(client)
    return check_all([account.history for account in accounts]).problems


def test_every_connection_serves_every_channel_before_and_after_a_reload(system):
    accounts = [Account.of(system, f"everywhere-{i}") for i in range(CHANNELS)]
    client = PatientClient(system.port)
    for account in accounts:
        account.open(client)
    pay_everywhere(system, accounts)
    reload(system)
    pay_everywhere(system, accounts)
    assert close_and_judge(system, accounts) == []


def test_a_reload_under_load_loses_nothing(system):
    with Load(system, seed=3, pause=0.002) as load:
        for _ in range(2):
            reload(system)
            load.wait_for_progress(20)
        verdict = load.close_and_judge()
    assert verdict.problems == []
    assert set(load.ways) == {"shared", "shared, batch", "own", "own, batch"}
    print(f"slowest payment during reloads: {load.slowest:.2f} s, {load.operations} operations, {verdict.gaps} lost answers")


def test_an_owner_that_hears_of_it_later_than_others_is_asked_again_soon(system):
    """The owner table reaches the workers one after the other: a new owner refuses what others send it before it has its own."""
    refused: list[int] = []

    def on_frame(connection: FrameConnection, kind: int, request_id: int, _: bytes) -> None:
        if len(refused) < len(LOOK_AGAIN_SECONDS) - 1:
            refused.append(kind)
            connection.refuse(request_id, b"not the owner")
        else:
            connection.reply(kind, request_id, encode_reply(Reply(200, b'{"channel_value_left":1,"value_received":2}')))

    async def scenario() -> None:
        address, late = Address(path=str(system.state_dir / "run" / "late.sock")), Rogue(system)
        server = await listen(address, lambda: FrameConnection(PAYLOAD_MAX, on_frame, lambda _: None))
        await late.join(address.path)
        alive = asyncio.ensure_future(late.wait_for(lambda _: False))
        names = (f"late-{i}" for i in itertools.count())
        account = next(a for n in names if shard_of((a := Account.of(system, n)).terms.outpoint, SHARDS) in late.epochs())
        client, target = PatientClient(system.port), account.sender.channel_target(account.sign(1))
        while not refused:  # until the worker that is asked knows of the owner
            answer = await asyncio.to_thread(client.request, "PUT", target)
        assert (answer.status, answer.json["value_received"]) == (200, 2), answer
        alive.cancel()
        late.connection.close()
        server.close()

    asyncio.run(scenario())
