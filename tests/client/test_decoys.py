"""Aim: whoever else pays to a channel's address keeps the payer from nothing. Method: the commands and the library against a real
server, and an explorer that lists what is told to it; the transactions are real, so their values are proven."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from bitcoin.core import COutPoint, CTransaction, CTxIn, CTxOut, b2lx
from bitcoin.core.script import CScript

from paychan.chain.base import FUNDING_OUTPUTS_MAX
from paychan.client import Channel, Refused, find_funding, parse_record
from paychan.client.sources import Esplora
from paychan.core.outpoint import txid_hex, txid_of
from paychan.core.refund import sign_refund
from tests.client.payer_system import type_paychan
from tests.system import running

ASKED, DECOY = 5_000_000, 84_000
HEIGHT = 102


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with running(tmp_path_factory.mktemp("system")) as found:
        yield found


class Explorer(BaseHTTPRequestHandler):
    """An Esplora server that lists output 0 of each of `paid`, confirmed by three blocks; `published` is what was sent to it."""

    paid: list[CTransaction] = []
    unconfirmed: set[str] = set()
    asked: list[str] = []
    published = b""

    def do_GET(self) -> None:
        cls, (*_, what, last) = type(self), self.path.split("/")
        if last == "utxo":
            cls.on_look()
            self.reply(json.dumps([self._row(tx) for tx in cls.paid]))
        elif last == "hex":
            cls.asked.append(what)
            self.reply(next(tx for tx in cls.paid if b2lx(tx.GetTxid()) == what).serialize().hex())
        else:
            self.reply(str(HEIGHT))

    def _row(self, tx: CTransaction) -> dict:
        txid = b2lx(tx.GetTxid())
        status = {"confirmed": False} if txid in self.unconfirmed else {"confirmed": True, "block_height": HEIGHT - 2}
        return {"txid": txid, "vout": 0, "value": tx.vout[0].nValue, "status": status}

    @classmethod
    def on_look(cls) -> None:
        pass

    def do_POST(self) -> None:
        type(self).published = self.rfile.read(int(self.headers["Content-Length"]))
        self.reply("ok")

    def reply(self, text: str) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def explorer():
    kind = type("Explorer", (Explorer,), {"paid": [], "asked": [], "unconfirmed": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    kind.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield kind
    server.shutdown()
    server.server_close()


@pytest.fixture
def payer(system, explorer, tmp_path):
    """Return a function that types a command about a channel named `w`, which has been agreed on."""
    state = tmp_path / "state"

    def say(*words: object):
        return type_paychan(state, *words)

    terms = ("--network", "test", "--expires-in", 7, "--amount", ASKED, "--name", "w")
    assert say("fund", f"http://127.0.0.1:{system.port}", *terms).status == 0
    say.state, say.chain = state / "w.json", ("--esplora", explorer.url, "--poll-seconds", "0.01", "--wait-seconds", "0.3")
    return say


def record(payer):
    return parse_record(payer.state.read_bytes())


def paid(payer, *values: int, salt: int = 0) -> CTransaction:
    """Return a transaction that pays values (satoshi) to the channel's address."""
    script = CScript(record(payer).agreement.script_pubkey)
    return CTransaction([CTxIn(COutPoint(bytes(31) + bytes((salt,)), 0))], [CTxOut(value, script) for value in values])


def named(tx: CTransaction, vout: int = 0) -> str:
    return f"{b2lx(tx.GetTxid())}:{vout}:{tx.vout[vout].nValue}"


@pytest.mark.parametrize("value", [DECOY, ASKED - 1, ASKED + 1])
def test_what_has_another_value_is_not_taken_for_the_funding_and_waiting_goes_on(payer, explorer, value):
    decoy = paid(payer, value)
    explorer.paid = [decoy]
    done = payer("open", "w", *payer.chain)
    assert done.status == 1 and "funding_not_found" in done.err
    assert f"no output of {ASKED} satoshi has arrived yet, but {named(decoy)}" in done.err
    assert record(payer).funding is None


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_the_one_with_the_amount_asked_for_funds_the_channel(payer, explorer, order):
    looks, mine, decoy = [], paid(payer, ASKED), paid(payer, DECOY)
    explorer.paid = [decoy]

    def arrive():
        looks.append(1)
        explorer.paid = [decoy, mine][::order] if len(looks) > 2 else [decoy]

    explorer.on_look = arrive
    done = payer("open", "w", *payer.chain)
    assert "funding_not_found" in done.err  # a server in debug mode knows only its own funding
    assert f"beside the funding there is {named(decoy)}" in done.err
    funding = record(payer).funding
    assert (txid_hex(txid_of(funding.outpoint)), funding.value) == (b2lx(mine.GetTxid()), ASKED)


def test_of_equal_ones_the_best_confirmed_is_taken_and_the_others_are_told(payer, explorer):
    mine, twin = paid(payer, ASKED), paid(payer, ASKED, salt=1)
    explorer.paid, explorer.unconfirmed = [mine, twin], {b2lx(mine.GetTxid())}
    done = payer("open", "w", *payer.chain)
    assert txid_of(record(payer).funding.outpoint) == twin.GetTxid()
    assert f"beside the funding there is {named(mine)}" in done.err


def test_dust_without_end_does_not_hide_the_payer_s_money_nor_cost_more_than_some_questions(payer, explorer):
    dust = [paid(payer, ASKED + salt, salt=salt) for salt in range(1, 100)]
    explorer.paid = [*dust, paid(payer, ASKED)]
    found = Esplora(explorer.url).find(record(payer).agreement)
    assert len(found) == len(explorer.asked) == FUNDING_OUTPUTS_MAX
    assert found[0].funding.value == ASKED


def test_a_refund_reaches_whatever_lies_at_the_channel_s_address(payer, explorer, tmp_path):
    decoy, mine = paid(payer, DECOY), paid(payer, ASKED)
    assert payer("open", "w", "--funding", named(decoy)).status == 1  # noted; the server knows nothing of it
    assert record(payer).funding.value == DECOY
    (tmp_path / "tx").write_text(mine.serialize().hex())
    for how in (("--funding", named(mine)), ("--funding-tx", tmp_path / "tx")):
        explorer.published = b""
        done = payer("refund", "w", "--fee-rate", 2, *how, "--broadcast", "--esplora", explorer.url, "--json")
        refund = CTransaction.deserialize(bytes.fromhex(explorer.published.decode()))
        told = json.loads(done.out)
        assert refund.vin[0].prevout == COutPoint(mine.GetTxid(), 0)
        assert refund.vout[0].nValue == told["value"] == ASKED - told["fee"]
        assert record(payer).funding.value == DECOY  # the channel is as it was
    own = CTransaction.deserialize(bytes.fromhex(_refunded(payer, tmp_path, "refund", "w", "--fee-rate", 2)))
    assert own.vin[0].prevout == COutPoint(decoy.GetTxid(), 0)


def _refunded(payer, tmp_path, *words: object) -> str:
    done = payer(*words, "--json")
    assert done.status == 0, done.err
    return (tmp_path / "state" / f"{json.loads(done.out)['txid']}.hex").read_text().strip()


def test_the_library_refunds_another_output_before_the_channel_has_one(payer):
    with Channel(payer.state) as channel:
        funding = find_funding(channel.record.agreement, paid(payer, ASKED).serialize())
        with pytest.raises(Refused, match="no funding output yet"):
            channel.refund(2)
        made = channel.refund(2, funding)
        terms = channel.record.terms_on(funding)
        assert made.raw == sign_refund(terms, made.fee, channel._key) and made.value == ASKED - made.fee


def test_of_several_outputs_of_one_transaction_the_amount_asked_for_decides(payer):
    agreement = record(payer).agreement
    assert find_funding(agreement, paid(payer, DECOY, ASKED, 7).serialize()).value == ASKED
    for values in ((DECOY, DECOY + 1), (ASKED, ASKED)):
        with pytest.raises(Refused, match="2 outputs"):
            find_funding(agreement, paid(payer, *values).serialize())
    assert find_funding(agreement, paid(payer, DECOY).serialize()).value == DECOY  # the payer names it itself
