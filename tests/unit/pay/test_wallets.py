"""Aim: a channel is funded once, whatever fails in between, and by nothing that does not pay it. Method: a node's wallet as Bitcoin
Core's RPC documentation has it, over HTTP, and real transactions."""

import asyncio
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
from bitcoin.core import COutPoint, CTransaction, CTxIn, CTxOut
from bitcoin.core.script import CScript

from paychan.client import Refused, Unreachable
from paychan.client.sources import NodeAddress
from paychan.core.outpoint import txid_hex
from paychan.pay.budget import NO_LIMITS
from paychan.pay.errors import FundingNeeded
from paychan.pay.node import NodeWallet
from paychan.pay.payer import Payer
from paychan.pay.purse import Purse
from paychan.pay.terms import read_terms
from paychan.pay.wallets import ByHand
from tests.chain.core_stand_in import CoreError, CoreStandIn
from tests.system import ROOT
from tests.unit.pay.shop import NOW, Shop, buy

PSBT = "cHNidP8BAHUCAAAAAQ=="


@contextmanager
def standing_in():
    """Yield a node's stand-in that serves in another thread, and a wallet on it."""
    loop, ready, nodes = asyncio.new_event_loop(), threading.Event(), []

    async def serve():
        nodes.append(await CoreStandIn().__aenter__())
        ready.set()

    def run():
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    (node,) = nodes
    try:
        yield node, NodeWallet(NodeAddress("127.0.0.1", node.port, node.user, node.password), None, "payer")
    finally:
        asyncio.run_coroutine_threadsafe(node.__aexit__(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


class Bank:
    """A wallet's memory: what was sent, to which address."""

    def __init__(self, node):
        self.sent, self.script = {}, b""
        node.results |= {
            "listtransactions": lambda *_: [self.row(txid, address) for txid, (address, _) in self.sent.items()],
            "sendtoaddress": self.send,
            "gettransaction": lambda txid, *_: {"hex": self.sent[txid][1].serialize().hex()},
        }

    def row(self, txid, address):
        return {"txid": txid, "address": address, "category": "send", "confirmations": 0, "abandoned": False}

    def send(self, address, amount, comment=""):
        value = round(float(amount) * 100_000_000)
        transaction = CTransaction([CTxIn(COutPoint(bytes(32), len(self.sent)))], [CTxOut(value, CScript(self.script))])
        txid = txid_hex(transaction.GetTxid())
        self.sent[txid] = (address, transaction)
        return txid


@pytest.fixture
def wallet_and_bank():
    with standing_in() as (node, wallet):
        yield wallet, Bank(node), node


def new_channel(tmp_path, wallet):
    """Return a purse and the name of a channel in it that has no money yet."""
    purse, shop = Purse(tmp_path / "purse", NO_LIMITS, ByHand(), clock=lambda: NOW), Shop()
    terms = read_terms(shop.origin, shop.challenge("/a").session())
    with pytest.raises(FundingNeeded) as caught:
        purse.take(terms, 300)
    purse._wallet = wallet
    return purse, caught.value.name


def test_what_must_be_paid_by_hand_is_told_once_and_the_same(tmp_path):
    payer, shop = Payer(tmp_path / "purse", NO_LIMITS, wallet=ByHand(), clock=lambda: NOW), Shop()
    told = []
    for _ in range(3):
        with pytest.raises(FundingNeeded) as caught:
            buy(payer, shop)
        told.append((caught.value.address, caught.value.amount, caught.value.uri))
    assert len(set(told)) == 1
    assert told[0][2].startswith(f"bitcoin:{told[0][0]}?amount=")
    assert len(payer.purse.names()) == 1


def test_a_wallet_pays_once_and_the_output_is_taken_from_its_transaction(tmp_path, wallet_and_bank):
    wallet, bank, _ = wallet_and_bank
    purse, name = new_channel(tmp_path, wallet)
    agreed = purse.unfunded(name)
    bank.script = agreed.script_pubkey
    funding = wallet.fund(name, agreed)
    assert funding.value == agreed.planned_value
    assert wallet.fund(name, agreed) == funding
    assert len(bank.sent) == 1


def test_a_wallet_whose_answer_was_lost_is_not_asked_to_pay_again(tmp_path, wallet_and_bank):
    wallet, bank, node = wallet_and_bank
    purse, name = new_channel(tmp_path, wallet)
    agreed = purse.unfunded(name)
    bank.script = agreed.script_pubkey
    send = node.results["sendtoaddress"]

    def lose(*words):
        send(*words)
        return CoreError(-28, "the answer is lost")

    node.results["sendtoaddress"] = lose
    with pytest.raises(Refused, match="lost"):
        wallet.fund(name, agreed)
    node.results["sendtoaddress"] = send
    assert wallet.fund(name, agreed).value == agreed.planned_value
    assert len(bank.sent) == 1


def test_a_wallet_that_breaks_off_is_not_told_twice_to_pay(tmp_path, wallet_and_bank):
    """A client of HTTP makes a call again whose kept connection was closed without an answer. This one must not."""
    wallet, bank, node = wallet_and_bank
    purse, name = new_channel(tmp_path, wallet)
    agreed = purse.unfunded(name)
    bank.script = agreed.script_pubkey
    serve = node._answer_one

    async def break_off(reader, writer):
        before = len(bank.sent)
        keeps = await serve(reader, _Deaf(writer, lambda: len(bank.sent) > before))
        return keeps and len(bank.sent) == before

    node._answer_one = break_off
    with pytest.raises(Unreachable):
        wallet.fund(name, agreed)
    node._answer_one = serve
    assert len(bank.sent) == 1
    assert wallet.fund(name, agreed).value == agreed.planned_value
    assert len(bank.sent) == 1


class _Deaf:
    """Writes nothing once it should not."""

    def __init__(self, writer, is_deaf):
        self._writer, self._is_deaf = writer, is_deaf

    def write(self, data):
        if not self._is_deaf():
            self._writer.write(data)


def test_what_pays_something_else_is_no_funding(tmp_path, wallet_and_bank):
    wallet, bank, _ = wallet_and_bank
    purse, name = new_channel(tmp_path, wallet)
    bank.script = b"\x6a"
    with pytest.raises(Refused, match="0 outputs"):
        wallet.fund(name, purse.unfunded(name))


def test_a_wallet_that_is_away_is_unreachable(tmp_path):
    purse, name = new_channel(tmp_path, None)
    with pytest.raises(Unreachable):
        NodeWallet(NodeAddress("127.0.0.1", 1, "", ""), None).fund(name, purse.unfunded(name))


def transaction_for(agreed, value):
    return CTransaction([CTxIn(COutPoint(bytes(32), 7))], [CTxOut(value, CScript(agreed.script_pubkey))]).serialize()


def test_a_signed_psbt_is_sent_and_noted(tmp_path, wallet_and_bank):
    wallet, _, node = wallet_and_bank
    purse, name = new_channel(tmp_path, wallet)
    agreed, sent = purse.unfunded(name), []
    node.results |= {
        "walletcreatefundedpsbt": lambda inputs, outputs: {"psbt": PSBT} if list(outputs[0]) == [agreed.funding_address] else None,
        "finalizepsbt": {"hex": transaction_for(agreed, agreed.planned_value).hex(), "complete": True},
        "sendrawtransaction": lambda raw: sent.append(raw) or "ab" * 32,
    }
    assert wallet.psbt(agreed) == PSBT
    funding = wallet.broadcast(agreed, PSBT)
    assert sent and funding.value == agreed.planned_value
    purse.set_funding(name, funding)
    with pytest.raises(Refused, match="is funded by"):
        purse.unfunded(name)


def test_a_psbt_by_the_commands(tmp_path, wallet_and_bank):
    _, _, node = wallet_and_bank
    purse, name = new_channel(tmp_path, None)
    agreed = purse.unfunded(name)
    node.results |= {
        "walletcreatefundedpsbt": {"psbt": PSBT},
        "finalizepsbt": lambda text: {"hex": transaction_for(agreed, agreed.planned_value).hex(), "complete": text == PSBT},
    }
    url, signed = f"http://{node.user}:{node.password}@127.0.0.1:{node.port}", tmp_path / "signed"

    def run(action, *words):
        command = [sys.executable, "-m", "paychan", "purse", action, name, *map(str, words), "--purse", str(purse.directory)]
        command += ["--bitcoind", url, "--wallet", "payer"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    signed.write_text("no psbt")
    assert run("broadcast", signed).returncode == 2
    made = run("psbt")
    assert (made.returncode, made.stdout) == (0, PSBT + "\n"), made
    signed.write_text(made.stdout)
    sent = run("broadcast", signed)
    assert (sent.returncode, f"funding value: {agreed.planned_value}" in sent.stdout) == (0, True), sent
    again = run("psbt")
    assert (again.returncode, "already_funded" in again.stderr) == (1, True)


@pytest.mark.parametrize(("value", "complete", "code"), [(0, False, "psbt_incomplete"), (-1, True, "other_amount")])
def test_a_psbt_that_does_not_do_is_not_sent(tmp_path, wallet_and_bank, value, complete, code):
    wallet, _, node = wallet_and_bank
    purse, name = new_channel(tmp_path, wallet)
    agreed = purse.unfunded(name)
    node.results |= {
        "finalizepsbt": {"hex": transaction_for(agreed, agreed.planned_value + value).hex(), "complete": complete},
        "sendrawtransaction": CoreError(-1, "must not be asked"),
    }
    with pytest.raises(Refused) as caught:
        wallet.broadcast(agreed, PSBT)
    assert caught.value.code == code


def test_a_channel_that_somebody_paid_too_little_stays_unfunded(tmp_path):
    """The look is for the amount that was asked for: who pays dust to the address cannot make a channel of it."""
    purse, name = new_channel(tmp_path, ByHand(lambda agreed: None))
    agreed = purse.unfunded(name)
    with pytest.raises(FundingNeeded):
        purse._wallet.fund(name, agreed)
    assert replace(agreed, planned_value=None).funding_address == agreed.funding_address
