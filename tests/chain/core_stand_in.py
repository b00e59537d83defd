"""A stand-in for Bitcoin Core's JSON-RPC server, for what bcoin lacks: wallets, testmempoolaccept, cookies, bad answers.

It answers as the RPC documentation exported from Bitcoin Core 25 to 32 says (bitcoincore.org/en/doc/VERSION/rpc/), and no
more: it knows no blocks or scripts. Its mempool knows what it was sent, and which of two that conflict stays (`is_version`). A test
sets results in `results` (method -> value, or function of the parameters), or the bytes of a whole HTTP answer in `raw`. A
`CoreError` as a result is answered as an error.
"""

import asyncio
import base64
import inspect
import json
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from bitcoin.core import CTransaction

from paychan.chain.wallets import with_checksum
from paychan.core.network import BY_NAME

TIP_HEIGHT = 200
BLOCK_HASH = "ab" * 32
TIP_TIME = 1_800_000_000


class CoreError:
    """An error as Core gives it."""

    def __init__(self, code: int, message: str) -> None:
        self.code, self.message = code, message


class _Number(float):
    """A number that is written as its text, digit for digit, as Core writes amounts."""

    def __new__(cls, text: str) -> "_Number":
        number = super().__new__(cls, float(text))
        number.text = text
        return number

    text: str

    def __repr__(self) -> str:
        return self.text


def btc(text: str) -> Any:
    """Return an amount that appears in the answer exactly as `text`."""
    return _Number(text)


class CoreStandIn:
    """One server on loopback. `requests`: the batches received, as lists of (method, parameters); `wallets`: by name."""

    def __init__(self, network: str = "regtest") -> None:
        self.user, self.password = "__cookie__", "first"
        self.results: dict[str, Any] = {
            "getblockchaininfo": {
                "chain": BY_NAME[network].chain,
                "blocks": TIP_HEIGHT,
                "headers": TIP_HEIGHT,
                "bestblockhash": BLOCK_HASH,
                "time": TIP_TIME,
                "mediantime": TIP_TIME - 3000,
                "verificationprogress": 0.99999,
                "initialblockdownload": False,
                "pruned": False,
            },
            "getblockhash": lambda height: BY_NAME[network].genesis if height == 0 else f"{height:064x}",
            "getindexinfo": {"txindex": {"synced": True, "best_block_height": TIP_HEIGHT}},
            "gettxout": None,
            "gettxspendingprevout": lambda outputs: outputs,
            "getrawtransaction": CoreError(-5, "No such mempool or blockchain transaction."),
            "getblockheader": {"height": TIP_HEIGHT},
        }
        self.is_version(29)
        self.mempool: dict[str, CTransaction] = {}
        self.wallets: dict[str, dict[str, Any]] = {}
        self.unspent: list[dict[str, Any]] = []
        self.wallet_transactions: dict[str, dict[str, Any]] = {}
        self.import_errors: deque[CoreError] = deque()
        self.import_gate = asyncio.Event()
        self.import_gate.set()
        self.requests: list[list[tuple[str, list[Any]]]] = []
        self.raw: bytes | None = None
        self.silent = False
        self.close_after_answer = False
        self.close_before_answer = False
        self.connections = self.connections_open = self.connections_peak = 0
        self._serving: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> "CoreStandIn":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.import_gate.set()
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def calls(self, method: str) -> list[list[Any]]:
        """Return the parameters of all calls of one method."""
        return [parameters for batch in self.requests for name, parameters in batch if name == method]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.connections_open += 1
        self.connections_peak = max(self.connections_peak, self.connections_open)
        try:
            while await self._answer_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.connections_open -= 1
            writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read one request and answer it; return whether the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = await reader.readexactly(int(fields["Content-Length"]))
        if self.close_before_answer:
            return False
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        if fields["Authorization"] != f"Basic {token}":
            writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            return True
        batch = json.loads(body)
        self.requests.append([(call["method"], call["params"]) for call in batch])
        if self.silent:
            await asyncio.sleep(3600)
        if self.raw is not None:
            writer.write(self.raw)
            return False
        wallet = head.split(" ")[1].removeprefix("/wallet/") if head.split(" ")[1] != "/" else ""
        answers = [await self._call(call, wallet) for call in batch]
        text = _write(answers).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
        return not self.close_after_answer

    async def _call(self, call: dict[str, Any], wallet: str) -> dict[str, Any]:
        method, parameters = call["method"], call["params"]
        own = getattr(self, f"_{method}", None)
        if method in self.results:
            result = self.results[method]
            result = _apply(result, parameters) if callable(result) else result
        elif own is not None:
            result = await own(wallet, *parameters)
        else:
            result = CoreError(-32601, "Method not found")
        if isinstance(result, CoreError):
            return {"result": None, "error": {"code": result.code, "message": result.message}, "id": call["id"]}
        return {"result": result, "error": None, "id": call["id"]}

    # The mempool, as far as it goes: what was sent, and what it conflicts with

    def is_version(self, major: int, full_rbf: bool | None = None) -> None:
        """Be a release of Core, with `mempoolfullrbf` set or left as it is: off before 28, and always on since 29."""
        self.full_rbf = major >= 29 or (major == 28 if full_rbf is None else full_rbf)
        self.results["getnetworkinfo"] = {"version": major * 10_000, "subversion": f"/Satoshi:{major}.0.0/", "connections": 10}
        fees = {"mempoolminfee": btc("0.00001000"), "minrelaytxfee": btc("0.00001000")}
        self.results["getmempoolinfo"] = {**fees, "fullrbf": self.full_rbf}

    def _conflicts(self, transaction: CTransaction) -> list[str]:
        prevouts = {tx_in.prevout for tx_in in transaction.vin}
        return [txid for txid, known in self.mempool.items() if prevouts & {tx_in.prevout for tx_in in known.vin}]

    async def _testmempoolaccept(self, _: str, transactions: list[str]) -> Any:
        (transaction,) = (CTransaction.deserialize(bytes.fromhex(text)) for text in transactions)
        if transaction.GetTxid()[::-1].hex() in self.mempool:
            return [{"allowed": False, "reject-reason": "txn-already-in-mempool"}]
        if self._conflicts(transaction) and not self.full_rbf:
            return [{"allowed": False, "reject-reason": "txn-mempool-conflict"}]
        return [{"allowed": True}]

    async def _sendrawtransaction(self, _: str, text: str) -> Any:
        transaction = CTransaction.deserialize(bytes.fromhex(text))
        conflicts, txid = self._conflicts(transaction), transaction.GetTxid()[::-1].hex()
        if conflicts and txid not in conflicts and not self.full_rbf:
            return CoreError(-26, "txn-mempool-conflict")
        for conflict in conflicts:
            del self.mempool[conflict]
        self.mempool[txid] = transaction
        return txid

    # Wallets

    async def _createwallet(self, _: str, name: str, *arguments: Any) -> Any:
        if name in self.wallets:
            return CoreError(-4, "Wallet file verification failed. Failed to create database path. Database already exists.")
        self.wallets[name] = {"loaded": True, "arguments": list(arguments), "on_startup": arguments[5], "imports": []}
        return {"name": name}

    async def _loadwallet(self, _: str, name: str, on_startup: bool | None = None) -> Any:
        if name not in self.wallets:
            return CoreError(-18, "Wallet file verification failed. Path does not exist.")
        if self.wallets[name]["loaded"]:
            return CoreError(-35, f'Wallet "{name}" is already loaded.')
        self.wallets[name].update(loaded=True, on_startup=on_startup)
        return {"name": name}

    async def _unloadwallet(self, _: str, name: str, on_startup: bool | None = None) -> Any:
        if not self.wallets.get(name, {}).get("loaded"):
            return CoreError(-18, "Requested wallet does not exist or is not loaded")
        self.wallets[name].update(loaded=False, on_startup=on_startup)
        return {}

    async def _listwallets(self, _: str) -> Any:
        return ["other", *(name for name, wallet in self.wallets.items() if wallet["loaded"])]

    async def _listwalletdir(self, _: str) -> Any:
        return {"wallets": [{"name": ""}, {"name": "other"}, *({"name": name} for name in self.wallets)]}

    async def _listdescriptors(self, wallet: str) -> Any:
        imports = self.wallets[wallet]["imports"]
        return {"wallet_name": wallet, "descriptors": [{"desc": row["desc"]} for row in imports]}

    async def _importdescriptors(self, wallet: str, requests: list[dict[str, Any]]) -> Any:
        await self.import_gate.wait()
        if self.import_errors:
            return self.import_errors.popleft()
        if not self.wallets.get(wallet, {}).get("loaded"):
            return CoreError(-18, "Requested wallet does not exist or is not loaded")
        answers = []
        for row in requests:
            good = with_checksum(row["desc"].split("#")[0]) == row["desc"]
            error = {"success": False, "error": {"code": -5, "message": "Provided checksum does not match"}}
            answers.append({"success": True} if good else error)
            self.wallets[wallet]["imports"].append(row)
        return answers

    async def _listunspent(self, wallet: str, low: int, high: int, addresses: list[str], _: bool, limits: Any) -> Any:
        if not self.wallets.get(wallet, {}).get("loaded"):
            return CoreError(-18, "Requested wallet does not exist or is not loaded")
        least = Decimal(limits.get("minimumAmount", 0))
        rows = [row for row in self.unspent if row["wallet"] == wallet and row["address"] in addresses]
        return [row for row in rows if Decimal(str(row["amount"])) >= least][: limits["maximumCount"]]

    async def _gettransaction(self, _: str, txid: str) -> Any:
        return self.wallet_transactions.get(txid, CoreError(-5, "Invalid or non-wallet transaction id"))


def _apply(function: Callable[..., Any], parameters: list[Any]) -> Any:
    """Call with as many of the parameters as the function names, or all if it has a star."""
    code = function.__code__
    return function(*parameters) if code.co_flags & inspect.CO_VARARGS else function(*parameters[: code.co_argcount])


def _write(value: Any) -> str:
    """Return JSON with amounts as they were given."""
    if isinstance(value, _Number):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{_write(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_write, value)) + "]"
    if isinstance(value, Decimal):
        return str(value)
    return json.dumps(value)
