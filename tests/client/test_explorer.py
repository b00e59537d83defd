"""Aim: an explorer's nonsense is no funding output, and no traceback. Method: a real HTTP server with such answers."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from bitcoin.core import COutPoint, CTransaction, CTxIn, CTxOut
from bitcoin.core.script import CScript

from paychan.client import Unreachable
from paychan.client.sources import Esplora
from paychan.core.outpoint import txid_hex
from paychan.core.units import MAX_MONEY
from tests.client.test_refund_and_settlement import AGREEMENT

VALUE = 1_000_000


def transaction(value: int) -> CTransaction:
    return CTransaction([CTxIn(COutPoint(bytes(32), 0))], [CTxOut(value, CScript(AGREEMENT.script_pubkey))])


TXID = txid_hex(transaction(VALUE).GetTxid())
OUTPUT = {"txid": TXID, "vout": 0, "status": {"confirmed": True, "block_height": 100}}


@pytest.fixture
def explorer():
    class Explorer(BaseHTTPRequestHandler):
        outputs, height, raw = json.dumps([OUTPUT]), "102", transaction(VALUE).serialize()

        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            text = self.outputs if self.path.endswith("/utxo") else self.height if "tip" in self.path else self.raw.hex()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Explorer)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def found_at(server):
    return Esplora(f"http://127.0.0.1:{server.server_address[1]}").find(AGREEMENT)


def test_a_sensible_answer_is_found(explorer):
    (found,) = found_at(explorer)
    assert (found.funding.value, found.confirmations) == (VALUE, 3)
    explorer.RequestHandlerClass.outputs = json.dumps([{**OUTPUT, "status": {"confirmed": False}}])
    assert found_at(explorer)[0].confirmations == 0


def status(**changes: object) -> str:
    return json.dumps([{**OUTPUT, "status": {**OUTPUT["status"], **changes}}])


@pytest.mark.parametrize(
    "outputs",
    [
        *("null", "7", "{}", '"text"', "[7]", "[[]]", "[null]", "[{}]", "[" * 100_000, "<html>"),
        *(json.dumps([{**OUTPUT, name: 7.5}]) for name in OUTPUT),
        *(json.dumps([{**OUTPUT, name: None}]) for name in OUTPUT),
        *(json.dumps([{**OUTPUT, "vout": vout}]) for vout in (-1, 1, True, 10**30, "0")),
        *(status(block_height=height) for height in (float("inf"), float("nan"), 7.5, "100", None, [])),
    ],
)
def test_what_makes_no_sense_is_said(explorer, outputs):
    explorer.RequestHandlerClass.outputs = outputs
    with pytest.raises(Unreachable, match="makes no sense"):
        found_at(explorer)


@pytest.mark.parametrize("value", [-1, MAX_MONEY + 1])
def test_an_amount_that_cannot_be_is_no_funding(explorer, value):
    """The explorer chooses the transaction, so it can choose one that no block would hold."""
    made = transaction(value)
    explorer.RequestHandlerClass.outputs = json.dumps([{**OUTPUT, "txid": txid_hex(made.GetTxid())}])
    explorer.RequestHandlerClass.raw = made.serialize()
    with pytest.raises(Unreachable, match="makes no sense"):
        found_at(explorer)
