"""Aim: with two workers every channel is served right on every connection, also while the server reloads. Method: a real
system; SIGHUP to the server's main process, which replaces each worker by a new one."""

import os
import signal

import pytest

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
    assert load.slowest < 5
    print(f"slowest payment during reloads: {load.slowest:.2f} s, {load.operations} operations, {verdict.gaps} lost answers")
