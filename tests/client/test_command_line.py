"""Aim: the payer's commands, as a shell script would use them. Method: subprocesses against a real system and a block explorer."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from bitcoin.core import COutPoint, CTransaction, CTxIn, CTxOut
from bitcoin.core.script import CScript

from paychan.chain.base import BroadcastRefused, FundingOutput
from paychan.client import Channel, Funding, Refused, Unreachable, parse_record
from paychan.client.sources import BackendSource
from paychan.core.errors import Unavailable
from paychan.core.outpoint import txid_hex
from tests.client.payer_system import ask_paychan, run_paychan
from tests.ports import free_port
from tests.settled import settled_change
from tests.system import CHANGE_ADDRESS, ROOT, running


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with running(tmp_path_factory.mktemp("system")) as found:
        yield found


@pytest.fixture
def paychan(tmp_path):
    """Return a function that runs a command and returns (exit status, stdout as JSON, stderr as JSON)."""
    return lambda *words: ask_paychan(tmp_path / "state", *words)


def url(system) -> str:
    return f"http://127.0.0.1:{system.port}"


def fund(paychan, system, *more: object) -> tuple[int, dict, dict]:
    return paychan("fund", url(system), "--debug", "--expires-in", "7", *more)


def test_a_channel_s_life(paychan, system, tmp_path):
    status, key, _ = paychan("keygen", tmp_path / "my.key")
    assert status == 0 and len(key["client_pubkey"]) == 66
    status, funded, _ = fund(
        paychan, system, "--name", "shop", "--key", tmp_path / "my.key", "--change-address", CHANGE_ADDRESS
    )
    assert status == 0 and funded["phase"] == "funding"
    assert funded["bip21"].startswith(f"bitcoin:{funded['funding_address']}?amount=123456.78900000")
    assert paychan("open", "shop")[1]["paid_value"] == funded["open_price"] == 83240
    assert paychan("pay", "shop", 5)[1] == {
        "name": "shop",
        "status": "open",
        "change_value": 12345678900000 - 83245,
        "paid_value": 83245,
        "amount": 5,
        "recovered": 0,
        "settlement_txid": None,
    }
    assert paychan("status", "shop", "--resend")[1]["paid_value"] == 83245
    refund = paychan("refund", "shop", "--fee-rate", "10")[1]
    assert refund["expected_at"] == refund["valid_after"] + 3600
    raw = bytes.fromhex((tmp_path / "state" / f"{refund['txid']}.hex").read_text())
    assert txid_hex(CTransaction.deserialize(raw).GetTxid()) == refund["txid"]
    closed = paychan("close", "shop")[1]
    settlement = system.state_dir / "broadcast" / f"{closed['settlement_txid']}.hex"
    assert paychan("close", "shop", "--settlement", settlement)[1]["settlement_pays"] == closed["change_value"]
    record = parse_record((tmp_path / "state" / "shop.json").read_bytes())
    raw = bytes.fromhex(settlement.read_text())
    assert settled_change(raw, closed["settlement_txid"], record.terms) == record.change_value
    status, _, error = paychan("pay", "shop", 1)
    assert (status, error["code"], error["exit_status"]) == (5, "channel_closed", 5)


def test_names_list_and_paying_all(paychan, system, tmp_path):
    assert [fund(paychan, system)[1]["name"] for _ in range(2)] == ["channel-1", "channel-2"]
    assert paychan("open", "channel-1", "--amount", 100_000)[0] == 0
    paid = paychan("pay", "channel-1", "all", "--yes")[1]
    assert (paid["status"], paid["change_value"]) == ("closed", 0)
    (tmp_path / "state" / "broken.json").write_text("{}")
    channels = paychan("list")[1]["channels"]
    assert [(found["name"], found["phase"]) for found in channels] == [
        ("broken", "damaged"),
        ("channel-1", "closed"),
        ("channel-2", "funding"),
    ]


def test_exit_statuses(paychan, system, tmp_path):
    assert fund(paychan, system, "--name", "a")[0] == 0
    assert paychan("pay", "a", 1)[::2] == (1, {"code": "not_open", "detail": "the channel is not open yet", "exit_status": 1})
    assert paychan("open", "a", "--amount", 5)[2]["code"] == "open_price_short"
    assert paychan("open", "a")[0] == 0
    assert paychan("pay", "a", 0)[2]["code"] == "invalid_amount"
    assert paychan("pay", "a", "-5")[0] == paychan("pay", "a", "x")[0] == paychan("pay", "a")[0] == 2
    assert paychan("pay", "../a", 1)[2]["code"] == "usage"
    status, _, error = paychan("status", "nobody")
    assert (status, error["code"], error["detail"]) == (9, "channel_missing", 'no channel "nobody"; `paychan list` shows yours')
    assert fund(paychan, system, "--name", "a")[2]["code"] == "channel_exists"
    assert paychan("fund", url(system), "--expires-in", 1e8, "--debug")[2]["code"] == "invalid_exp_time"
    assert fund(paychan, system, "--name", "b", "--change-address", "nonsense")[0] == 1
    assert paychan("fund", url(system), "--expires-in", 7, "--network", "test", "--amount", 1000)[2]["code"] == "too_small"
    assert paychan("fund", "ftp://x", "--expires-in", 7, "--amount", 10**6)[0] == 2
    assert paychan("fund", "http://pay.example.com", "--expires-in", 7, "--amount", 10**6)[0] == 2  # live, and no TLS
    unreachable = ("fund", f"http://127.0.0.1:{free_port()}", "--expires-in", 7, "--amount", 10**6, "--deadline", "0.3")
    assert paychan(*unreachable)[::2][0] == 4
    state = tmp_path / "state" / "a.json"
    with Channel(state):
        assert paychan("pay", "a", 1)[0] == 8
    old = state.read_bytes()
    assert paychan("pay", "a", 100)[0] == 0
    state.write_bytes(old)
    assert paychan("pay", "a", 99)[::2][0] == 7
    assert paychan("status", "a")[1]["held"] == "state_behind_server"
    assert paychan("close", "a")[0] == 7


class Explorer(BaseHTTPRequestHandler):
    """An Esplora server with one transaction, `raw`, which it first does not know."""

    raw, vout, asked, published = b"", 1, 0, b""
    value_claimed = 1

    def do_GET(self) -> None:
        cls = type(self)
        txid = txid_hex(CTransaction.deserialize(cls.raw).GetTxid())
        if self.path.endswith("/utxo"):
            cls.asked += 1
            status = {"confirmed": True, "block_height": 100}
            found = [{"txid": txid, "vout": cls.vout, "value": cls.value_claimed, "status": status}]
            self.reply(json.dumps(found if cls.asked > 2 else []))
        else:
            self.reply("100" if self.path.endswith("height") else cls.raw.hex())

    def do_POST(self) -> None:
        type(self).published = self.rfile.read(int(self.headers["Content-Length"]))
        self.reply("ok")

    def reply(self, text: str) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


def test_funding_is_waited_for_and_its_value_proven(paychan, system, tmp_path):
    """The explorer lies about the value; the transaction does not."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Explorer)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    explorer = ("--esplora", f"http://127.0.0.1:{server.server_address[1]}/api")
    try:
        funded = paychan("fund", url(system), "--network", "test", "--expires-in", 7, "--btc", "0.01", "--name", "w")[1]
        assert funded["amount"] == 1_000_000 and "amount=0.01000000" in funded["bip21"]
        assert paychan("open", "w")[2]["code"] == "not_funded"
        script = parse_record((tmp_path / "state" / "w.json").read_bytes()).agreement.script_pubkey
        outputs = [CTxOut(5, CScript(b"\x51")), CTxOut(1_000_000, CScript(script))]
        Explorer.raw = CTransaction([CTxIn(COutPoint(bytes(32), 0))], outputs).serialize()
        status, _, error = paychan("open", "w", *explorer, "--poll-seconds", "0.01")
        assert (status, error["code"]) == (1, "funding_not_found")  # a debug server knows only its own funding
        assert paychan("status", "w")[1]["funding_value"] == 1_000_000
        refund = paychan("refund", "w", "--fee-rate", 2, "--broadcast", *explorer)[1]
        assert Explorer.published.decode() == (tmp_path / "state" / f"{refund['txid']}.hex").read_text().strip()
    finally:
        server.shutdown()
        server.server_close()


class OwnNode:
    """A chain backend that has one output."""

    def __init__(self, value: int) -> None:
        self.value, self.calls = value, []

    async def start(self) -> None:
        self.calls.append("start")

    async def stop(self) -> None:
        self.calls.append("stop")

    async def find_funding(self, request) -> list[FundingOutput]:
        self.calls.append("find")
        if request.script_pubkey == b"silent":
            raise Unavailable("chain_unavailable", "the node sleeps")
        return [FundingOutput(bytes(36), self.value, 3)]

    async def broadcast(self, raw: bytes) -> None:
        raise BroadcastRefused("non-final")


def test_a_node_of_the_payer_s_own_is_asked_through_the_chain_backends():
    node = OwnNode(700)
    source = BackendSource(lambda: node)
    agreed = SimpleNamespace(client_pubkey=b"", exp_time=0, script_pubkey=b"x")
    assert source.find(agreed) == [(Funding(bytes(36), 700), 3)]
    assert node.calls == ["start", "find", "stop"]
    with pytest.raises(Unreachable, match="the node sleeps"):
        source.find(SimpleNamespace(client_pubkey=b"", exp_time=0, script_pubkey=b"silent"))
    with pytest.raises(Refused, match="non-final"):
        source.broadcast(b"")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(paychan, shell):
    done = subprocess.run(
        [sys.executable, "-m", "paychan", "completion", shell], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0 and "keygen" in done.stdout and "fee-rate" in done.stdout
    if shell == "bash":
        probe = "COMP_WORDS=(paychan pay --re); COMP_CWORD=2; _paychan; echo ${COMPREPLY[@]}"
        found = subprocess.run(["bash", "-c", done.stdout + probe], capture_output=True, text=True)
        assert found.stdout == "--resume\n" and not found.stderr


def test_people_get_lines_and_one_line_errors(system, tmp_path):
    done = run_paychan(tmp_path, "fund", url(system), "--debug", "--expires-in", "7")
    assert "funding address: 2" in done.stdout and done.stdout.endswith("\nthen: paychan open channel-1\n")
    done = run_paychan(tmp_path, "pay", "channel-1", "1")
    assert (done.returncode, done.stderr) == (1, "paychan: the channel is not open yet (not_open)\n")
    assert "exit statuses:" in run_paychan(tmp_path, "pay", "--help").stdout
