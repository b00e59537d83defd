"""The whole system beside a real node, for the lifecycle tests: `Regtest` is both, `Channel` one payer's channel on it.

Between them stands a `Gate`: what passes it is the node's own, but a test may have it refuse calls by name, lose their
answers, answer in the node's stead, or shut it as if the node were down. Every payment's newest state is held here, and
`check_spender` judges what spent a funding output with python-bitcoinlib, coincurve and Bitcoin Core's script interpreter.
"""

import http.client
import json
import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pbk
from bitcoin.core import CBlock, CTransaction
from coincurve import PrivateKey

from paychan.core.channel import ChannelTerms
from paychan.core.network import REGTEST, decode_address
from paychan.core.outpoint import format_outpoint, make_outpoint, txid_hex, vout_of
from paychan.core.payment import Payment
from paychan.core.script import p2sh_script_pubkey
from paychan.core.sender import Sender, sign_payment
from tests.node.bcoin_node import Funding, Node
from tests.ports import free_port
from tests.settled import settled_change
from tests.system import CHANGE_ADDRESS, ROOT, Answer, System, wait_until

SERVER_KEY = PrivateKey(b"\x09" * 32)
VALUE = 5_000_000
OPEN_VALUE = 100_000
HOUR, DAY = 3600, 24 * 3600
DEPTH = 6
"""Blocks after which config/regtest counts a settlement as final."""

COINS = 40
"""Mature coinbases that a new node has: each funding takes one."""

_REFUSED = {"code": -26, "message": "refused by the test's gate"}
_FLAGS = pbk.ScriptVerificationFlags.ALL & ~pbk.ScriptVerificationFlags.TAPROOT


Changes = dict[str, dict[str, str]]


def _with(text: str, section: str, values: dict[str, str]) -> str:
    """Return a TOML text in which these keys of a section have these values."""
    head = f"[{section}]\n"
    before, _, after = text.partition(head)
    own, bracket, rest = after.partition("\n[")
    kept = [line for line in own.splitlines() if line.partition("=")[0].strip() not in values]
    lines = [*kept, *(f"{key} = {value}" for key, value in values.items())]
    return before.rstrip("\n") + "\n\n" + head + "\n".join(lines) + "\n" + bracket + rest


class Gate:
    """An HTTP proxy for JSON-RPC batches in front of a node. Each set holds method names.

    refused: answered with an error, unseen by the node. lost: done by the node, but the connection closes without an answer.
    answers: results that replace the node's. is_shut: every connection closes without an answer. seen: how often each was
    asked for.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.refused: set[str] = set()
        self.lost: set[str] = set()
        self.answers: dict[str, Any] = {}
        self.is_shut = False
        self.seen: Counter[str] = Counter()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_POST(self) -> None:  # noqa: N802  (http.server's name)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = gate.pass_on(self.path, self.headers["Authorization"], body)
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(answer[0])
                self.send_header("Content-Length", str(len(answer[1])))
                self.end_headers()
                self.wfile.write(answer[1])

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def open(self) -> None:
        """Let everything pass again."""
        self.refused, self.lost, self.answers, self.is_shut = set(), set(), {}, False

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def pass_on(self, path: str, authorization: str, body: bytes) -> tuple[int, bytes] | None:
        """Return status and body of the answer, None for none."""
        if self.is_shut:
            return None
        calls = json.loads(body)
        names = {call["method"] for call in calls}
        self.seen.update(call["method"] for call in calls)
        passed = [call for call in calls if call["method"] not in self.refused and call["method"] not in self.answers]
        connection = http.client.HTTPConnection(self.node.host, self.node.port, timeout=10)
        try:
            connection.request("POST", path, json.dumps(passed), {"Authorization": authorization})
            answer = connection.getresponse()
            status, content = answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        if names & self.lost:
            return None
        if len(passed) == len(calls):
            return status, content
        results = json.loads(content) if passed else []
        for call in calls:
            name = call["method"]
            if name in self.answers:
                results.append({"id": call["id"], "result": self.answers[name], "error": None})
            elif name in self.refused:
                results.append({"id": call["id"], "result": None, "error": _REFUSED})
        return status, json.dumps(results).encode()


class Regtest:
    """A node, the gate in front of it, and a system that knows only the gate. Use `regtest(...)`, which stops them."""

    def __init__(self, directory: Path, node: Node, changes: Changes, workers: int) -> None:
        self.directory, self.node = directory, node
        self.gate = Gate(node)
        (directory / "node.cookie").write_text(f"x:{node.api_key}")
        shutil.copytree(ROOT / "config" / "regtest", directory / "config")
        config = directory / "config" / "server.toml"
        text = re.sub(r"(?ms)^\[bitcoind\]$.*?(?=^\[|\Z)", "", config.read_text())
        place = {"port": str(self.gate.port), "cookie_file": f'"{directory / "node.cookie"}"'}
        for section, values in {"bitcoind": place, **changes}.items():
            text = _with(text, section, values)
        config.write_text(text)
        state = directory / "state"
        state.mkdir(mode=0o700)
        with open(os.open(state / "signer.key", os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(SERVER_KEY.secret.hex() + "\n")
        self.system = System(state, directory / "config", free_port(), workers)
        self.period = HOUR * int(re.search(r"(?m)^period_hours = (\d+)", text)[1])
        self.channels: list[Channel] = []
        self._blocks: dict[str, tuple[str, list[CTransaction]]] = {}

    @property
    def now(self) -> int:
        """The time that the server must reckon with: the wall clock's, or the chain's if that is later."""
        return max(int(time.time()), self.node.median_time)

    def channel(self, name: str, expires_in: int = DAY) -> "Channel":
        """Return a new payer's channel. expires_in: seconds by which it outlives its last payment."""
        return Channel(self, name, self.now + self.period + expires_in)

    def pass_time(self, until: int) -> None:
        """Bring the chain's median time past to `until`, with empty blocks."""
        self.node.set_time(until + 1)
        for _ in range(12):
            self.node.mine(1, mempool=False)
            if self.node.median_time >= until:
                return
        raise AssertionError("the median time did not follow")

    def restart_node(self) -> None:
        """Kill the node and start it again: it keeps its blocks, and loses its mempool and wallets."""
        self.node.kill()
        self.node.start()

    def mined(self) -> Iterator[tuple[int, CTransaction]]:
        """Yield (confirmations, transaction) of everything in the best chain but coinbases, newest block first."""
        block, tip = self.node.rpc("getbestblockhash"), self.node.height
        for height in range(tip, 0, -1):
            if block not in self._blocks:
                parsed = CBlock.deserialize(bytes.fromhex(self.node.rpc("getblock", block, 0)))
                self._blocks[block] = parsed.hashPrevBlock[::-1].hex(), parsed.vtx[1:]
            parent, transactions = self._blocks[block]
            for transaction in transactions:
                yield tip - height + 1, transaction
            block = parent

    def waiting(self) -> list[CTransaction]:
        """Return the mempool."""
        names = self.node.rpc("getrawmempool")
        return [CTransaction.deserialize(bytes.fromhex(self.node.rpc("getrawtransaction", name))) for name in names]

    def spender(self, channel: "Channel", mempool: bool = True) -> CTransaction | None:
        """Return what spends the channel's funding output, if anything does."""
        found = [tx for _, tx in self.mined() if _spends(tx, channel)]
        found += [tx for tx in (self.waiting() if mempool else []) if _spends(tx, channel)]
        assert len(found) <= 1, found
        return found[0] if found else None

    def check_spender(self, channel: "Channel") -> CTransaction:
        """Check that the newest payment's settlement has been mined, once; return it."""
        settlement = self.spender(channel, mempool=False)
        assert settlement is not None, f"{channel.name}: no settlement was mined"
        raw = settlement.serialize()
        change = settled_change(raw, txid_hex(settlement.GetTxid()), channel.terms)
        assert change == channel.newest.change_value
        locked = pbk.ScriptPubkey(p2sh_script_pubkey(channel.terms.redeem_script))
        assert locked.verify(channel.terms.funding_value, pbk.Transaction(raw), None, 0, _FLAGS)
        return settlement

    def ready(self) -> Answer:
        """Ask /readyz."""
        client = self.system.client()
        try:
            return client.request("GET", "/readyz")
        finally:
            client.close()

    def logged(self, pattern: str) -> list[str]:
        """Return the lines of the system's log that contain a regular expression."""
        return [line for line in list(self.system.output) if re.search(pattern, line)]

    def fees_signed(self, channel: "Channel") -> list[int]:
        """Return the fees (satoshi) of a channel's settlements, by the order of their versions."""
        signed = rf"signed {format_outpoint(channel.terms.outpoint)}: version (\d+), fee (\d+)"
        found = [match for line in list(self.system.output) if (match := re.search(signed, line))]
        return [fee for _, fee in sorted({(int(match[1]), int(match[2])) for match in found})]

    def replay_in_core(self) -> int:
        """Give all blocks of the node's best chain to Bitcoin Core's own validation; return the height it reached."""
        manager = pbk.load_chainman(self.directory / "core", pbk.ChainType.REGTEST)
        for height in range(1, self.node.height + 1):
            raw = bytes.fromhex(self.node.rpc("getblock", self.node.rpc("getblockhash", height), 0))
            manager.process_block(pbk.Block(raw))
        return int(manager.get_active_chain().height)


def _spends(transaction: CTransaction, channel: "Channel") -> bool:
    outpoint = channel.terms.outpoint
    return any(make_outpoint(spent.prevout.hash, spent.prevout.n) == outpoint for spent in transaction.vin)


class Channel:
    """One payer's channel: its key comes from `name`. `newest` is the newest payment that the server accepted."""

    def __init__(self, regtest: Regtest, name: str, exp_time: int) -> None:
        self.regtest, self.name, self.client = regtest, name, regtest.system.client()
        key = PrivateKey(sha256(name.encode()).digest())
        terms = ChannelTerms(
            outpoint=bytes(36),
            server_pubkey=SERVER_KEY.public_key.format(),
            client_pubkey=key.public_key.format(),
            exp_time=exp_time,
            funding_value=VALUE,
            change_script=decode_address(REGTEST, CHANGE_ADDRESS),
        )
        self.sender = Sender(terms, key, CHANGE_ADDRESS)
        self.newest: Payment | None = None
        regtest.channels.append(self)

    @property
    def terms(self) -> ChannelTerms:
        return self.sender.terms

    @property
    def script(self) -> bytes:
        """The script pubkey of the funding output."""
        return p2sh_script_pubkey(self.terms.redeem_script)

    def ask_address(self) -> Answer:
        """GET fundingInfo, as payers do first."""
        pubkey = self.terms.client_pubkey.hex()
        return self.client.request("GET", f"/v1/fundingInfo?client_pubkey={pubkey}&exp_time={self.terms.exp_time}")

    def fund(self, value: int = VALUE, confirmations: int = 1, **how: Any) -> Funding:
        """Ask for the address and pay to it."""
        wait_until(lambda: self.ask_address().code != "chain_unavailable", 10, "what each worker hears first of the chain")
        info = self.ask_address()
        assert info.status == 200, info.body
        funding = self.regtest.node.fund(self.script, value, **how)
        if confirmations:
            self.regtest.node.mine(confirmations)
        self.rest_on(funding.outpoint, value)
        return funding

    def rest_on(self, outpoint: bytes, value: int) -> None:
        """Take this output for the channel's funding, as the payer sees it."""
        self.sender.terms = replace(self.terms, outpoint=outpoint, funding_value=value)
        self.sender.change_value = value

    def open(self, received: int = OPEN_VALUE, named: bool = False) -> Answer:
        """Open with a payment of `received` satoshi; named: tell the outpoint, else the server looks by address."""
        payment = sign_payment(self.terms, self.terms.funding_value - received, self.sender.key)
        target = self.sender.open_target(payment)
        if named:
            outpoint = self.terms.outpoint
            target += f"&funding_txid={txid_hex(outpoint[:32])}&funding_vout={vout_of(outpoint)}"
        answer = self.client.request("POST", target)
        if answer.status in (201, 202):
            self.newest, self.sender.change_value = payment, payment.change_value
        return answer

    def opened(self, received: int = OPEN_VALUE) -> "Channel":
        """Fund and open; return the channel."""
        self.fund()
        return self.checked_open(received)

    def checked_open(self, received: int = OPEN_VALUE) -> "Channel":
        answer = self.open(received)
        assert (answer.status, answer.json.get("value_received")) == (201, received), answer.body
        return self

    def pay(self, amount: int = 1000) -> Answer:
        payment = sign_payment(self.terms, self.sender.change_value - amount, self.sender.key)
        answer = self.client.request("PUT", self.sender.channel_target(payment))
        if answer.status in (200, 202):
            self.newest, self.sender.change_value = payment, payment.change_value
        return answer

    def close(self) -> Answer:
        return self.client.request("DELETE", self.sender.channel_target(self.newest))

    @property
    def code(self) -> str:
        """Why the newest payment is refused when it is sent again; empty if it is accepted."""
        try:
            return self.client.request("PUT", self.sender.channel_target(self.newest)).code
        except OSError:
            return "no answer"

    @property
    def is_settled(self) -> bool:
        return self.code == "no_such_payment"

    def wait_for(self, code: str, seconds: float = 15) -> None:
        """Wait until the newest payment is answered so."""
        try:
            wait_until(lambda: self.code == code, seconds, f"{self.name}: {code or 'acceptance'}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is answered {self.code or 'acceptance'}") from None

    def wait_settled(self, depth: int, seconds: float = 60) -> None:
        """Mine until it is settled. The settler may replace a settlement just when blocks are mined, which then have neither."""

        def is_over() -> bool:
            if not self.is_settled:
                self.regtest.node.mine(depth)
                time.sleep(1.0)  # to look at them
                return False
            return True

        wait_until(is_over, seconds, f"{self.name}: the end")

    def wait_sent(self, seconds: float = 20) -> None:
        """Wait until a settlement is in the mempool or a block."""
        wait_until(lambda: self.regtest.spender(self) is not None, seconds, f"{self.name}: the settlement")


@contextmanager
def regtest(
    directory: Path, changes: Changes | None = None, workers: int = 1, is_ready: bool = True, behind: int = 0
) -> Iterator[Regtest]:
    """Run a node and a system; changes[section][key]: values in config/regtest/server.toml, as TOML.

    is_ready: wait until the system accepts requests. behind: seconds by which the node's clock is behind, and so its first blocks.
    """
    with Node(blocks_file=directory / "blocks") as node:
        if behind:
            node.set_time(int(time.time()) - behind)
        node.mine(100 + COINS)
        regtest = Regtest(directory, node, changes or {}, workers)
        try:
            if is_ready:
                regtest.system.start()
            yield regtest
        finally:
            if regtest.system.process is not None and regtest.system.process.poll() is None:
                regtest.system.stop()
            regtest.gate.close()
