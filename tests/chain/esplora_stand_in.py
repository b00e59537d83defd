"""A stand-in for Esplora servers, made from their documentation (API.md of Blockstream/esplora) and from reading the
source of electrs; it was never compared with a running one. A tiny chain in memory, told over HTTP/1.1, with faults on demand.

Of electrs it has these habits too: an unknown transaction's status is `{"confirmed":false}`, its outputs are `{"spent":false}`,
errors are plain text with status 400 or 404, and a refused broadcast quotes the node's answer to `sendrawtransaction`.
"""

import asyncio
import copy
import json
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any

from bitcoin.core import COutPoint, CTransaction, CTxIn, CTxOut
from bitcoin.core.script import CScript

from paychan.core.network import BY_NAME

BLOCK_SECONDS = 600
START = 1_700_000_000


def display(txid: bytes) -> str:
    return txid[::-1].hex()


def whole(transaction: CTransaction, witness: bytes) -> bytes:
    """Return a serialised transaction with any bytes where its witness is: the id does not cover them."""
    raw = transaction.serialize()
    return raw[:4] + b"\x00\x01" + raw[4:-4] + witness + raw[-4:]


def fake_hash(*parts: object) -> str:
    return sha256(repr(parts).encode()).hexdigest()


class TinyChain:
    """Blocks (height, id, time, transactions) and a mempool. Nothing is validated: a transaction is what spends and pays."""

    def __init__(self, network: str = "regtest") -> None:
        self.blocks: list[tuple[str, int, list[CTransaction]]] = [(BY_NAME[network].genesis, START, [])]
        self.mempool: list[CTransaction] = []
        self.fork = 0
        self._serial = 0

    def copy(self) -> "TinyChain":
        """Return a chain that goes its own way from here. (Transactions are immutable.)"""
        twin = copy.copy(self)
        twin.blocks, twin.mempool = list(self.blocks), list(self.mempool)
        return twin

    @property
    def height(self) -> int:
        return len(self.blocks) - 1

    def mine(self, *more: CTransaction, count: int = 1) -> None:
        """Mine the mempool and `more`, then empty blocks, `count` in all."""
        for _ in range(count):
            block_hash = fake_hash(self.fork, self.height, self.blocks[-1][0])
            self.blocks.append((block_hash, self.blocks[-1][1] + BLOCK_SECONDS, [*more, *self.mempool]))
            self.mempool, more = [], ()

    def reorganise(self, depth: int) -> None:
        """Take the last blocks away; their transactions return to the mempool, and what is mined next is another branch."""
        for _ in range(depth):
            self.mempool += [tx for tx in self.blocks.pop()[2] if not tx.is_coinbase()]
        self.fork += 1

    def pay(self, script: bytes, *values: int, coinbase: bool = False, mempool: bool = True) -> CTransaction:
        """Return a new transaction with one output of each value (satoshi), put into the mempool unless told not to."""
        self._serial += 1
        prevout = COutPoint() if coinbase else COutPoint(sha256(b"%d" % self._serial).digest(), 0)
        tx_in = CTxIn(prevout, CScript(bytes((4, self._serial & 0xFF, 0, 0, 0))))
        transaction = CTransaction([tx_in], [CTxOut(value, CScript(script)) for value in values])
        if mempool and not coinbase:
            self.mempool.append(transaction)
        return transaction

    def spend(self, transaction: CTransaction, vout: int = 0, value: int = 1000, mempool: bool = True) -> CTransaction:
        spender = CTransaction([CTxIn(COutPoint(transaction.GetTxid(), vout))], [CTxOut(value, CScript(b"\x51"))])
        if mempool:
            self.mempool.append(spender)
        return spender

    def all(self) -> list[tuple[CTransaction, int | None]]:
        """Return all transactions with the heights of their blocks."""
        mined = [(tx, height) for height, (_, _, txs) in enumerate(self.blocks) for tx in txs]
        return [*mined, *((tx, None) for tx in self.mempool)]

    def find(self, txid_hex: str) -> tuple[CTransaction, int | None] | None:
        return next((row for row in self.all() if display(row[0].GetTxid()) == txid_hex), None)

    def status(self, height: int | None) -> dict[str, Any]:
        if height is None:
            return {"confirmed": False}
        block_hash, time, _ = self.blocks[height]
        return {"confirmed": True, "block_height": height, "block_hash": block_hash, "block_time": time}

    def spender(self, txid_hex: str, vout: int) -> tuple[CTransaction, int, int | None] | None:
        for transaction, height in self.all():
            for index, tx_in in enumerate(transaction.vin):
                if display(tx_in.prevout.hash) == txid_hex and tx_in.prevout.n == vout:
                    return transaction, index, height
        return None


class EsploraStandIn:
    """One server on a free port of 127.0.0.1. `model` may be shared with others, and exchanged while it runs.

    overrides: from the beginning of a path to what is answered instead: (status, body), or bytes sent as they are.
    silent: requests are read and never answered. refusal: what the node says to every broadcast. witness: of every transaction,
    which one made of wallets' outputs has; empty: none. lie: gets method, path, status and body of each answer, and returns, maybe
    late, what is said instead: status and body, or bytes sent as they are.
    """

    def __init__(self, model: TinyChain, prefix: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.model, self.prefix, self._tls = model, prefix, tls
        self.overrides: dict[str, tuple[int, str] | bytes] = {}
        self.silent = False
        self.refusal = ""
        self.witness = b"\x02\x47" + b"\x30" * 71 + b"\x21" + b"\x02" * 33
        self.fees: Any = {"1": 90.5, "2": 87.882, "3": 87.882, "6": 68.285, "10": 1.027, "144": 1.0}
        self.lie: Callable[[str, str, int, str], Awaitable[tuple[int, str] | bytes]] | None = None
        self.requests: list[str] = []
        self.received: list[bytes] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "EsploraStandIn":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        self.host = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self.url = f"http{'s' if self._tls else ''}://{self.host}{self.prefix}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.hang_up()

    async def hang_up(self) -> None:
        """Close all connections, as a server does with those that were idle too long."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        self.connections += 1
        try:
            with suppress(OSError, EOFError, asyncio.CancelledError):
                while True:
                    await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split("\r\n")[0].split(" ")
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        self.requests.append(f"{method} {target}")
        if self.silent:
            await asyncio.Event().wait()
        path = target.removeprefix(self.prefix)
        found = [answer for start, answer in self.overrides.items() if path.startswith(start)]
        if found and isinstance(found[0], bytes):
            writer.write(found[0])
            await writer.drain()
            raise EOFError
        status, text = found[0] if found else self.answer(method, path, body)
        if self.lie is not None:
            lie = await self.lie(method, path, status, text)
            if isinstance(lie, bytes):
                writer.write(lie)
                await writer.drain()
                raise EOFError
            status, text = lie
        data = text.encode()
        writer.write(b"HTTP/1.1 %d X\r\nServer: stand-in\r\nContent-Length: %d\r\n\r\n" % (status, len(data)) + data)
        await writer.drain()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, str]:
        """Route as the documentation does."""
        model = self.model
        match [method, *path.split("/")[1:]]:
            case ["GET", "blocks", "tip", "hash"]:
                return 200, model.blocks[-1][0]
            case ["GET", "blocks", "tip", "height"]:
                return 200, str(model.height)
            case ["GET", "blocks"]:
                newest = range(model.height, max(-1, model.height - 10), -1)
                return 200, json.dumps([self._block(height) for height in newest])
            case ["GET", "block-height", height]:
                known = int(height) <= model.height
                return (200, model.blocks[int(height)][0]) if known else (404, "Block not found")
            case ["GET", "scripthash", script_hash, "utxo"]:
                return 200, json.dumps(self._unspent(script_hash))
            case ["GET", "tx", txid, *rest]:
                return self._transaction(txid, rest)
            case ["GET", "fee-estimates"]:
                return 200, json.dumps(self.fees)
            case ["POST", "tx"]:
                return self._broadcast(body)
        return 404, f"endpoint does not exist {path}"

    def _block(self, height: int) -> dict[str, Any]:
        block_hash, time, txs = self.model.blocks[height]
        times = sorted(block[1] for block in self.model.blocks[max(0, height - 10) : height + 1])
        block = {"id": block_hash, "height": height, "version": 1, "timestamp": time, "tx_count": len(txs)}
        block["mediantime"] = times[len(times) // 2]
        block["previousblockhash"] = self.model.blocks[height - 1][0] if height else None
        return block

    def _transaction(self, txid: str, rest: list[str]) -> tuple[int, str]:
        found = self.model.find(txid)
        match rest:
            case ["status"]:
                return 200, json.dumps(self.model.status(found[1] if found else None))
            case ["outspend", vout]:
                return 200, json.dumps(self._outspend(txid, int(vout)))
            case ["hex"] if found:
                return 200, (whole(found[0], self.witness) if self.witness else found[0].serialize()).hex()
        return 404, "Transaction not found"

    def _outspend(self, txid: str, vout: int) -> dict[str, Any]:
        spender = self.model.spender(txid, vout)
        if spender is None:
            return {"spent": False}
        transaction, vin, height = spender
        return {"spent": True, "txid": display(transaction.GetTxid()), "vin": vin, "status": self.model.status(height)}

    def _unspent(self, script_hash: str) -> list[dict[str, Any]]:
        rows = []
        for transaction, height in self.model.all():
            txid = display(transaction.GetTxid())
            for vout, output in enumerate(transaction.vout):
                pays = sha256(bytes(output.scriptPubKey)).hexdigest() == script_hash
                if pays and self.model.spender(txid, vout) is None:
                    rows.append({"txid": txid, "vout": vout, "value": output.nValue, "status": self.model.status(height)})
        return rows

    def _broadcast(self, body: bytes) -> tuple[int, str]:
        transaction = CTransaction.deserialize(bytes.fromhex(body.decode()))
        self.received.append(bytes.fromhex(body.decode()))
        txid = display(transaction.GetTxid())
        if self.refusal:
            return 400, f'sendrawtransaction RPC error: {{"code":-26,"message":"{self.refusal}"}}'
        if self.model.find(txid) is None:
            self.model.mempool.append(transaction)
        return 200, txid
