"""Aim: every channel that can be settled is, exactly once, whatever dies meanwhile, and one that cannot holds up no other.
Method: real systems; the signer stopped or kept down; kill -9 between the settlement's steps; expiry by a chosen clock."""

import contextlib
import os
import random
import secrets
import signal
import threading
import time

import pytest

from paychan.core.settlement import check_settlement
from tests.campaign.load import Account, PatientClient, is_outpoint_of
from tests.settled import FEE_MAX
from tests.system import System, running, wait_until
from tests.tiling import Outcome, check_all

SEED = int(os.environ.get("PAYCHAN_SEED", secrets.randbelow(1 << 32)))
CLOCK_START = 1_700_000_000
HOUR = 3600
REFUSED_CHANNELS = 40  # more than the settler settles at a time


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with running(tmp_path_factory.mktemp("settlement"), workers=2) as system:
        yield system


def opened(system: System, name: str, amount: int = 100_000) -> Account:
    """Return a channel that is open and has been paid on."""
    account = Account.of(system, name)
    client = PatientClient(system.port)
    account.open(client, amount)
    account.pay(client, 1000)
    client.close()
    return account


def settlements(system: System, account: Account) -> list[str]:
    """Return the txids of broadcast transactions that spend the account's channel."""
    return [key for key, raw in system.broadcast().items() if is_outpoint_of(raw, account.terms.outpoint)]


def check_settled(system: System, account: Account, txid: str = "") -> None:
    """Check that exactly one valid settlement with the newest payment was broadcast, and that a close names it."""
    found = settlements(system, account)
    assert len(found) == 1 and txid in ("", found[0]), (account.name, found, txid)
    check_settlement(system.broadcast()[found[0]], account.terms, account.lowest, FEE_MAX)
    client = PatientClient(system.port)
    assert account.close(client).decode() == found[0]
    account.check_broadcast(system.broadcast(), found[0])
    client.close()


def phase_code(system: System, account: Account) -> str:
    """Return with which code the next payment is refused; empty if a replay is accepted."""
    client = PatientClient(system.port)
    answer, _ = client.until_answered("PUT", account.sender.channel_target(account.lowest))
    client.close()
    return answer.code


# --- the signer ---


def test_a_signer_that_dies_with_a_close_in_its_hands_delays_it_only(system):
    account = opened(system, "signer-dies")
    answers = []
    signer = system.child_pid("signer")
    os.kill(signer, signal.SIGSTOP)
    try:
        client = system.client()
        close = threading.Thread(
            target=lambda: answers.append(client.request("DELETE", account.sender.channel_target(account.lowest)))
        )
        close.start()
        wait_until(lambda: phase_code(system, account), 5, "the closing")
        assert phase_code(system, account) == "channel_closing"
        assert settlements(system, account) == []
        assert close.is_alive()
    finally:
        os.kill(signer, signal.SIGKILL)
    close.join(10)
    assert [(answer.status, answer.code) for answer in answers] == [(503, "signer_unavailable")]
    # No further request: the settler finds the channel once a new signer is there.
    wait_until(lambda: settlements(system, account), 15, "the settlement by itself")
    check_settled(system, account)
    wait_until(lambda: phase_code(system, account) == "no_such_payment", 10, "the end of the settlement")
    assert check_all([account.history]).problems == []


def test_while_the_signer_is_down_nothing_is_taken_and_a_close_is_answered_503(system):
    account = opened(system, "signer-down")
    config = system.config_dir / "signer.toml"
    text = config.read_text()
    config.write_text("network = ")
    client = system.client()
    try:
        system.kill("signer")

        def code() -> str:
            with contextlib.suppress(OSError):
                return client.request("GET", "/readyz").code
            return ""

        wait_until(lambda: code() == "signer_unavailable", 5, "noticing that the signer is down")
        target = account.sender.channel_target(account.lowest)
        answer = client.request("DELETE", target)
        assert (answer.status, answer.code) == (503, "signer_unavailable")
        assert client.request("PUT", target).status == 503
        assert settlements(system, account) == []
    finally:
        config.write_text(text)
    patient = PatientClient(system.port)
    txid = account.close(patient).decode()
    check_settled(system, account, txid)
    assert check_all([account.history]).problems == []


# --- kill -9 between the arrows ---


@pytest.mark.parametrize("victim", ["server", "store", "signer"])
def test_a_kill_between_the_steps_leaves_every_channel_settled_exactly_once(system, victim):
    rng = random.Random(f"{SEED}-{victim}")
    print(f"seed {SEED}")
    accounts = [opened(system, f"{SEED}-{victim}-{i}") for i in range(20)]
    given_up, errors = [], []

    def close(account: Account, patiently: bool) -> None:
        client = PatientClient(system.port)
        try:
            if patiently:
                account.close(client)
            else:  # a payer who asks once and is never seen again
                with contextlib.suppress(OSError):
                    client.request("DELETE", account.sender.channel_target(account.lowest))
                given_up.append(account)
        except BaseException as error:
            errors.append(error)

    for start in range(0, 20, 5):
        wait_until(lambda: system.ready_workers() == 2, 20, "both workers")
        threads = [
            threading.Thread(target=close, args=(account, i % 2 == 0)) for i, account in enumerate(accounts[start : start + 5])
        ]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0, 0.04))
        system.kill(victim)
        for thread in threads:
            thread.join(40)
    assert errors == []
    wait_until(lambda: system.ready_workers() == 2, 20, "both workers")
    # Of those whose payers vanished, each is settled by itself, or was not closed at all and still takes payments.
    for account in given_up:
        wait_until(lambda account=account: phase_code(system, account) in ("", "no_such_payment"), 15, account.name)
    for account in accounts:
        account.close(PatientClient(system.port))
        check_settled(system, account)
        wait_until(lambda account=account: phase_code(system, account) == "no_such_payment", 15, account.name)
    assert check_all([account.history for account in accounts]).problems == []


# --- by timer, and beside channels that cannot settle ---

LENIENT = {
    "server.toml": {
        "period_hours": "period_hours = 1",
        "duration_hours_min": "duration_hours_min = 0",
        "base_price": "base_price = 0",
        "price_add_settlement_fee": "price_add_settlement_fee = false",
        "fee_per_byte": "fee_per_byte = 40\nfee_per_byte_min = 40",
    }
}


def test_expiry_settles_by_itself_also_beside_channels_that_cannot_settle(tmp_path):
    began = time.monotonic()  # no process's clock is ahead of one that starts now
    with running(tmp_path, workers=2, env={"PAYCHAN_CLOCK_START": str(CLOCK_START)}, changes=LENIENT) as system:

        def now() -> int:
            return CLOCK_START + int(time.monotonic() - began)

        def account_of(name: str, seconds: int) -> Account:
            sender = system.payer(name, HOUR + seconds, now()).sender
            account = Account.of(system, name)
            account.sender, account.history.funding_value = sender, sender.terms.funding_value
            return account

        client = PatientClient(system.port)
        cannot = []
        for i in range(REFUSED_CHANNELS):  # too poor for the fee, or for the signer's bound on the fee's share
            account = account_of(f"poor-{i}", HOUR)
            account.open(client, 1000 if i % 2 else 20_000)
            answer = client.request("DELETE", account.sender.channel_target(account.lowest))
            assert answer.status == 503
            assert answer.code == ("settlement_uneconomic" if i % 2 else "settlement_refused"), answer.body
            assert phase_code(system, account) == "channel_closing"
            cannot.append(account)

        expiring = [account_of(f"expiring-{i}", 4 + i % 3) for i in range(6)]
        later = account_of("later", HOUR)
        for account in [*expiring, later]:
            account.open(client, 100_000)
        codes: dict[str, list[str]] = {account.name: [] for account in expiring}
        deadline = time.monotonic() + 15
        waiting = list(expiring)
        while waiting:  # pay until refused; after that there is no request any more
            assert time.monotonic() < deadline, [account.name for account in waiting]
            for account in list(waiting):
                before = account.lowest
                operation = account.pay(client, 10)
                if operation.outcome is Outcome.REFUSED:
                    codes[account.name].append(operation.code)
                    account.lowest = before  # the newest that was acknowledged
                    waiting.remove(account)
        refused = [code for found in codes.values() for code in found]
        assert set(refused) <= {"channel_expiring", "channel_closing", "no_such_payment"}
        assert "channel_expiring" in refused, refused
        for account in expiring:
            wait_until(lambda account=account: settlements(system, account), 10, f"the settlement of {account.name}")
        for account in expiring:
            check_settled(system, account)
        assert check_all([account.history for account in expiring]).problems == []
        assert all(settlements(system, account) == [] for account in cannot)
        later.pay(client, 10)
        later.close(client)
        assert check_all([later.history]).problems == []
