"""Aim: a channel on any funding transaction that consensus allows is settled, and one that the signer would not settle does not
open. Method: three real processes on a file of funding outputs, and a signer that wants proof."""

import contextlib
import json
import os
import time
from hashlib import sha256

import pytest
from bitcoin.core import COutPoint, CTransaction, CTxIn, CTxOut
from bitcoin.core.script import CScript
from coincurve import PrivateKey

from paychan.core.channel import ChannelTerms
from paychan.core.funding import STRIPPED_SIZE_MAX
from paychan.core.network import TEST, decode_address
from paychan.core.outpoint import make_outpoint, txid_hex, txid_of, vout_of
from paychan.core.script import p2sh_script_pubkey
from paychan.core.sender import Sender
from paychan.core.settlement import check_settlement
from tests.chain.esplora_stand_in import whole
from tests.settled import FEE_MAX
from tests.system import CHANGE_ADDRESS, WEEK, Payer, running

VALUE = 10_000_000


class Coins:
    """The file of funding outputs, and the payers of channels on them."""

    def __init__(self, path):
        self.path, self.outputs, self.system, self.exp_time = path, [], None, int(time.time()) + WEEK
        self.write()

    def write(self):
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps({"outputs": self.outputs}))
        os.replace(fresh, self.path)

    def payers(self, name, count, size=0, witness=b"", has_proof=True):
        """Return payers of channels that one transaction funds, padded to `size` bytes without its witness."""
        keys = [PrivateKey(sha256(f"{name}/{number}".encode()).digest()) for number in range(count)]
        blank = [self.terms(key, bytes(36)) for key in keys]
        outputs = [CTxOut(VALUE, CScript(p2sh_script_pubkey(terms.redeem_script))) for terms in blank]
        vin = CTxIn(COutPoint(sha256(name.encode()).digest(), 0))
        padding = max(0, size - len(CTransaction([vin], outputs).serialize()) - 4)
        transaction = CTransaction([CTxIn(vin.prevout, CScript(bytes(padding)))], outputs)
        assert not size or len(transaction.serialize()) == size
        txid = transaction.GetTxid()
        for vout, output in enumerate(outputs):
            row = {"txid": txid_hex(txid), "vout": vout, "value": VALUE, "script_pubkey": output.scriptPubKey.hex()}
            raw = whole(transaction, witness) if witness else transaction.serialize()
            self.outputs.append({**row, "confirmations": 6, "transaction": raw.hex() if has_proof else ""})
        self.write()
        senders = [Sender(self.terms(key, make_outpoint(txid, vout)), key, CHANGE_ADDRESS) for vout, key in enumerate(keys)]
        return [Coined(self.system, sender) for sender in senders]

    def terms(self, key, outpoint):
        return ChannelTerms(
            outpoint,
            self.system.server_pubkey,
            key.public_key.format(),
            self.exp_time,
            VALUE,
            decode_address(TEST, CHANGE_ADDRESS),
        )


class Coined(Payer):
    """A payer who names the outpoint."""

    def open(self, amount=100_000):
        self.newest = self.sender.pay(amount)
        outpoint = self.sender.terms.outpoint
        named = f"&funding_txid={txid_hex(txid_of(outpoint))}&funding_vout={vout_of(outpoint)}"
        return self.client.request("POST", self.sender.open_target(self.newest) + named)

    def check_settled(self, txid):
        raw = self.system.broadcast()[txid]
        check_settlement(raw, self.sender.terms, self.newest, FEE_MAX)


@pytest.fixture(scope="module")
def coins(tmp_path_factory):
    directory = tmp_path_factory.mktemp("unsettleable")
    coins = Coins(directory / "funding.json")
    changes = {
        "server.toml": {"backend = ": f'backend = "fixture"\nfixture_file = "{coins.path}"'},
        "signer.toml": {"waive_funding_proof = ": "waive_funding_proof = false"},
    }
    with running(directory, changes=changes) as coins.system:
        yield coins


@contextlib.contextmanager
def nobody_is_cut_off(system):
    """Check that no connection between the processes is lost meanwhile."""
    before = len(system.output)
    yield
    assert not [line for line in system.output[before:] if "connection was lost" in line]


@pytest.mark.parametrize(("size", "witness"), [(0, b"\x00"), (0, bytes(3_900_000)), (530_443, b""), (STRIPPED_SIZE_MAX, b"\x00")])
def test_a_channel_on_a_funding_transaction_of_any_size_is_settled(coins, size, witness):
    with nobody_is_cut_off(coins.system):
        for payer in coins.payers(f"large-{size}-{len(witness)}", 3, size, witness):
            answer = payer.open()
            assert answer.status == 201, answer.body
            assert payer.pay(1_000_000).status == 200
            answer = payer.close()
            assert answer.status == 202, answer.body
            payer.check_settled(answer.json["settlement_txid"])


def test_its_proof_is_kept_and_the_source_is_not_asked_again(coins):
    (payer,) = coins.payers("kept", 1)
    assert payer.open().status == 201
    coins.outputs[-1]["transaction"] = ""
    coins.write()
    coins.system.restart()
    payer.client = coins.system.client()
    answer, _ = payer.client.persist("DELETE", payer.sender.channel_target(payer.newest))
    assert answer.status == 202, answer.body
    payer.check_settled(answer.json["settlement_txid"])


def test_what_the_signer_would_not_settle_does_not_open_and_costs_nobody_anything(coins):
    with nobody_is_cut_off(coins.system):
        (good,) = coins.payers("good", 1)
        assert good.open().status == 201
        (payer,) = coins.payers("no proof", 1, has_proof=False)
        answer = payer.open()
        assert (answer.status, answer.code) == (400, "not_settleable") and "funding_not_proven" in answer.json["detail"]
        (payer,) = coins.payers("another proof", 1)
        coins.outputs[-1]["transaction"] = coins.outputs[0]["transaction"]
        coins.write()
        answer = payer.open()
        assert (answer.status, answer.code) == (503, "chain_unavailable")
        assert payer.resend().status == 404
        assert good.pay(1).status == 200
