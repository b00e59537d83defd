"""A node that counts what it is asked for, and finds a block each second: what it takes for every channel to be looked at again.

It is Bitcoin Core's stand-in in a process of its own; `CountedNode` is its handle, `served` a system on regtest that asks it.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from shutil import copytree
from typing import Any

from bitcoin.core import CTransaction
from coincurve import PrivateKey

from paychan.core.outpoint import txid_hex, txid_of, vout_of
from tests.chain.core_stand_in import TIP_HEIGHT, CoreError, CoreStandIn, btc
from tests.chain.regtest_system import _with
from tests.ports import free_port
from tests.simulation.payer import make_channel
from tests.system import ROOT, Answer, Payer, System

OPEN_VALUE = 100_000
FUNDING_VALUE = 10_000_000
WEEK = 7 * 24 * 3600
TIP_CALLS = ("getblockchaininfo", "getblockhash", "getindexinfo", "getnetworkinfo", "getmempoolinfo")
"""What it is asked for because time goes by."""


class CountedNode:
    """The handle. Its process ends with its input."""

    def __init__(self, is_still: bool = False) -> None:
        command = [sys.executable, "-m", "tests.hostile.counted_node", *(["still"] if is_still else [])]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._lock = threading.Lock()
        self.port, self.cookie = json.loads(self._ask(""))

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            if line:
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()
            return self._process.stdout.readline()

    def fund(self, transaction: bytes) -> None:
        """Put a transaction into a block."""
        self._ask(transaction.hex())

    def asked(self) -> Counter[str]:
        """Return what it was asked for since the last time, by method, but what it is asked for anyway. "made up": for outputs
        that it does not have."""
        return Counter(json.loads(self._ask("asked")))

    def find_block(self) -> None:
        """Find one now; `is_still` nodes find no others."""
        self._ask("block")

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


@dataclass
class FundedPayer(Payer):
    """A payer who names the output that funds its channel."""

    def open(self, amount: int = OPEN_VALUE) -> Answer:
        self.newest, outpoint = self.sender.pay(amount), self.sender.terms.outpoint
        named = f"&funding_txid={txid_hex(txid_of(outpoint))}&funding_vout={vout_of(outpoint)}"
        assert self.client is not None
        return self.client.request("POST", self.sender.open_target(self.newest) + named)


@contextlib.contextmanager
def served(directory: Path, own_port: int, is_still: bool = False) -> Iterator[tuple[System, CountedNode]]:
    """Run a system on regtest that has this node."""
    node = CountedNode(is_still)
    state, config = directory / "state", directory / "config"
    state.mkdir(mode=0o700)
    for name, text in (("signer.key", PrivateKey(b"\x09" * 32).to_hex() + "\n"), ("node.cookie", node.cookie)):
        (state / name).touch(mode=0o600)
        (state / name).write_text(text)
    copytree(ROOT / "config" / "regtest", config)
    for file in config.glob("*.toml"):
        text = file.read_text()
        if file.name == "server.toml":
            text = _with(text, "bitcoind", {"cookie_file": '"node.cookie"', "port": str(node.port)})
            text = _with(text, "direct", {"base_port": str(own_port)})
        file.write_text(text)
    system = System(state, config, free_port(), 1, {})
    try:
        system.start()
        yield system, node
    finally:
        if system.process is not None and system.process.poll() is None:
            system.stop()
        node.stop()


def funded_payer(system: System, node: CountedNode, name: str) -> FundedPayer:
    """Return a payer, whose key is derived from `name`, with a channel that the node knows."""
    expiry = int(time.time()) + WEEK
    sender, funding = make_channel(Random(sha256(name.encode()).digest()), 1, system.server_pubkey, expiry, FUNDING_VALUE)
    node.fund(funding)
    return FundedPayer(system, sender)


# --- its process ---


class _Blocks:
    """What is in blocks, of which there is a new one each second, or (is_still) when somebody asks for one."""

    def __init__(self, is_still: bool) -> None:
        self._began, self._known = int(time.time()), dict[str, CTransaction]()
        self._is_still, self.found, self.made_up = is_still, 0, 0

    @property
    def height(self) -> int:
        return TIP_HEIGHT + self.found + (0 if self._is_still else int(time.time()) - self._began)

    def info(self) -> dict[str, Any]:
        now = int(time.time())
        return {
            "chain": "regtest", "blocks": self.height, "headers": self.height, "bestblockhash": f"{self.height:064x}", "time": now,
            "mediantime": now - 3000, "verificationprogress": 0.99999, "initialblockdownload": False, "pruned": False,
        }  # fmt: skip

    def take(self, raw: str) -> None:
        transaction = CTransaction.deserialize(bytes.fromhex(raw))
        self._known[txid_hex(transaction.GetTxid())] = transaction

    def output(self, txid: str, number: int) -> dict[str, Any] | None:
        transaction = self._known.get(txid)
        if transaction is None or number >= len(transaction.vout):
            self.made_up += 1
            return None
        output = transaction.vout[number]
        return {
            "bestblock": f"{self.height:064x}", "confirmations": 20, "coinbase": False,
            "value": btc(f"{output.nValue // 10**8}.{output.nValue % 10**8:08}"),
            "scriptPubKey": {"hex": bytes(output.scriptPubKey).hex()},
        }  # fmt: skip

    def transaction(self, txid: str) -> Any:
        known = self._known.get(txid)
        return known.serialize().hex() if known is not None else CoreError(-5, "No such mempool or blockchain transaction.")


async def _serve(is_still: bool) -> None:
    blocks, loop = _Blocks(is_still), asyncio.get_running_loop()
    async with CoreStandIn() as core:
        core.results |= {
            "getblockchaininfo": lambda: blocks.info(),
            "estimatesmartfee": {"feerate": btc("0.00010000"), "blocks": 6},
            "getblockheader": lambda _: {"height": blocks.height},
            "getindexinfo": lambda: {"txindex": {"synced": True, "best_block_height": blocks.height}},
            "gettxout": lambda txid, number: blocks.output(txid, number),
            "getrawtransaction": lambda txid: blocks.transaction(txid),
        }
        print(json.dumps([core.port, f"{core.user}:{core.password}"]), flush=True)
        while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
            if line == "asked":
                calls = Counter(method for batch in core.requests for method, _ in batch if method not in TIP_CALLS)
                calls["made up"], blocks.made_up = blocks.made_up, 0
                core.requests.clear()
                print(json.dumps(calls), flush=True)
            elif line == "block":
                blocks.found += 1
                print("", flush=True)
            else:
                blocks.take(line)
                print("", flush=True)


if __name__ == "__main__":
    asyncio.run(_serve("still" in sys.argv))
