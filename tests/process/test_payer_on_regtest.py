"""Aim: a payer killed at any moment goes on without loss on either side, with real coins' rules. Method: the commands, a real
node, kill -9 at random moments of open, pay and close; the settlement in a block is what both sides are judged by."""

import json
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paychan.client import ChannelRecord, parse_record
from paychan.core.network import REGTEST, decode_address
from paychan.core.outpoint import format_outpoint
from signer.keys import create_key
from tests.node.bcoin_node import Node
from tests.ports import free_port
from tests.settled import settled_change
from tests.system import ROOT, System, wait_until

SEED = 20261122
FUNDING_VALUE = 5_000_000
AMOUNT = 7


@pytest.fixture(scope="module")
def node():
    with Node() as node:
        node.mine(110)
        yield node


@pytest.fixture(scope="module")
def system(node, tmp_path_factory):
    """A server that knows the node."""
    directory = tmp_path_factory.mktemp("system")
    config, state = directory / "config", directory / "state"
    shutil.copytree(ROOT / "config" / "regtest", config)
    server = config / "server.toml"
    server.write_text(re.sub(r"(?m)^port = 18443", f"port = {node.port}", server.read_text()))
    state.mkdir(mode=0o700)
    (state / "node.cookie").write_text(f"x:{node.api_key}")
    create_key(state / "signer.key")
    system = System(state, config, free_port(), workers=2)
    try:
        system.start()
        yield system
    finally:
        system.stop()


class Tool:
    """The command `paychan` on one channel of its own."""

    def __init__(self, directory: Path, system: System, node: Node) -> None:
        self.directory = directory
        self.chain = ["--bitcoind", f"http://127.0.0.1:{node.port}", "--cookie", str(system.state_dir / "node.cookie")]
        self.chances = random.Random(SEED)

    def _spawn(self, *words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "paychan", *map(str, words), "--json", "--state-dir", str(self.directory)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)

    def run(self, *words: object) -> dict:
        """Run a command, which must succeed; return its result."""
        process = self._spawn(*words)
        output, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
        return json.loads(output)

    def kill(self, *words: object, seconds: float) -> bool:
        """Kill a command -9 so long after its start; return whether it had told of its success."""
        process = self._spawn(*words)
        time.sleep(seconds)  # the moment is what is tested
        process.kill()
        output, complaint = process.communicate()
        assert process.returncode in (0, -9), complaint
        return output.endswith("\n")

    def moment(self, usual: float) -> float:
        """Return seconds until the next kill, when a command usually takes `usual`: mostly after Python has started."""
        return usual * self.chances.uniform(0.6, 1.1)

    @property
    def record(self) -> ChannelRecord:
        return parse_record((self.directory / "c.json").read_bytes())


def signed(record: ChannelRecord) -> int:
    return record.paid_value + record.pending_value


@pytest.fixture
def tool(tmp_path, system, node):
    """The tool with a channel that is funded and not open."""
    tool = Tool(tmp_path, system, node)
    terms = ["--amount", FUNDING_VALUE, "--expires-in", 3, "--network", "regtest", "--name", "c"]
    agreed = tool.run("fund", f"http://127.0.0.1:{system.port}", *terms)
    node.fund(decode_address(REGTEST, agreed["funding_address"]), FUNDING_VALUE)
    node.mine(1)
    return tool


def check_settlement(tool: Tool, system: System, node: Node, txid: str) -> None:
    """Mine, and check that the settlement in the block, the payer's file and the server's books say the same."""
    node.mine(6)
    found = node.rpc("getrawtransaction", txid, 1)
    assert found["confirmations"] == 6
    record = tool.record
    change = settled_change(bytes.fromhex(found["hex"]), txid, record.terms)
    assert change == record.change_value == FUNDING_VALUE - record.paid_value
    where = [str(system.config_dir), format_outpoint(record.terms.outpoint)]

    def books() -> dict:
        command = [sys.executable, "-m", "paychan", "channel", *where, "--json"]
        env = {"PAYCHAN_STATE_DIR": str(system.state_dir)}
        return json.loads(subprocess.run(command, env=env, cwd=ROOT, capture_output=True, check=True).stdout)

    wait_until(lambda: books()["phase"] == "settled", 20, "the server's taking note")
    assert (books()["received"], books()["settlement_txid"]) == (record.paid_value, txid)


def test_a_tool_killed_at_any_moment_loses_nothing(tool, system, node):
    begun = time.monotonic()
    tool.run("status", "c")
    usual = 1.5 * (time.monotonic() - begun)  # that asks nobody

    for _ in range(3):
        tool.kill("open", "c", *tool.chain, seconds=tool.moment(2 * usual))
    price = tool.record.agreement.open_price
    assert tool.run("open", "c", *tool.chain)["paid_value"] == price == signed(tool.record)

    begun = time.monotonic()
    tool.run("pay", "c", AMOUNT)
    usual = time.monotonic() - begun
    total = price + AMOUNT
    for _ in range(10):
        succeeded = tool.kill("pay", "c", AMOUNT, seconds=tool.moment(usual))
        record = tool.record
        assert signed(record) in ({total + AMOUNT} if succeeded else {total, total + AMOUNT})
        assert not (succeeded and record.pending_value)
        pending = record.pending_value
        total = signed(record) + AMOUNT
        outcome = tool.run("pay", "c", AMOUNT)
        assert (outcome["paid_value"], outcome["amount"], outcome["recovered"]) == (total, AMOUNT, pending)

    for _ in range(3):
        tool.kill("close", "c", seconds=tool.moment(usual))
    closed = tool.run("close", "c")
    assert closed["paid_value"] == total
    check_settlement(tool, system, node, closed["settlement_txid"])


def test_a_payment_without_answer_before_the_close_counts_on_both_sides_or_on_none(tool, system, node):
    """A program that pays in a loop is killed in the midst of it, and the channel is closed without another payment."""
    tool.run("open", "c", *tool.chain)
    command = [sys.executable, "-m", "tests.client.paying_loop", str(tool.directory / "c.json")]
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert process.stdout.readline()
        time.sleep(tool.chances.uniform(0, 0.1))
        process.kill()
        told = [line for line in process.communicate()[0].splitlines(keepends=True) if line.endswith("\n")]
        assert not told or int(told[-1]) <= tool.record.paid_value
    record = tool.record
    closed = tool.run("close", "c")
    assert closed["paid_value"] in (record.paid_value, signed(record))
    check_settlement(tool, system, node, closed["settlement_txid"])
