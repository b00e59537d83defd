"""Watch-only wallets of a Bitcoin node, in which funding is found by address (never by `scantxoutset`).

Wallets are named NAME-1, NAME-2, ..: Core cannot forget a descriptor, so when one holds `watched_max` scripts the next is
made, and the one before the last is unloaded (its file stays; `loadwallet` brings it back). A script whose wallet was
unloaded is imported anew when it is asked for. Several workers share the wallets; each may overfill one a little.

Anybody can ask for an address that nobody paid, and each is there for ever. So a script is imported only when an open asks for it
without naming an outpoint, and only so many in an hour: the node grows by some megabytes a day at most, and what is pushed out of
the loaded wallets is older than what a new import looks through.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable

from ..core.errors import Unavailable
from ..core.network import Network, p2sh_address
from ..core.outpoint import make_outpoint, txid_hex
from ..core.units import COIN
from .answers import clean, is_absent, need, need_amount, need_bytes, need_field, need_hash, need_list, need_rows
from .base import FUNDING_OUTPUTS_MAX
from .jsonrpc import METHOD_NOT_FOUND, JsonRpc, RpcError, unavailable

RESCAN_SECONDS = 2 * 3600
"""How far before now an import looks for payments; Core adds two hours more."""

LISTED_MAX = 1000
"""Outputs at one address that the node is asked for at a time. It lists them in no order that means anything."""

LISTINGS_MAX = 8
"""Times that it is asked, each time for larger outputs only: who would hide an output pays for thousands."""

PENDING_MAX = 1000
"""Scripts that wait for the import under way; beyond it, requests are refused."""

IMPORT_SECONDS_MAX = 60.0

ASKED_BURST_MAX = 1000
ASKED_PER_MINUTE = 10
"""Scripts that one worker imports because an open asks for them: so many at once, and so many more each minute."""

RESCAN_TRIES = 20

RESCAN_DELAY = 0.25

WALLET_ERROR = -4

WALLET_NOT_FOUND = -18

WALLET_ALREADY_LOADED = -35

_INPUT_CHARSET = "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ "
_CHECKSUM_CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0xF5DEE51989, 0xA9FDCA3312, 0x1BAB10E32D, 0x3706B1677A, 0x644D626FFD)


def with_checksum(descriptor: str) -> str:
    """Return an output descriptor followed by its checksum (BIP 380)."""
    symbols, groups = [], []
    for letter in descriptor:
        position = _INPUT_CHARSET.index(letter)
        symbols.append(position & 31)
        groups.append(position >> 5)
        if len(groups) == 3:
            symbols.append(groups[0] * 9 + groups[1] * 3 + groups[2])
            groups = []
    if len(groups) == 1:
        symbols.append(groups[0])
    elif len(groups) == 2:
        symbols.append(groups[0] * 3 + groups[1])
    check = 1
    for value in [*symbols, *(0,) * 8]:
        top = check >> 35
        check = (check & 0x7FFFFFFFF) << 5 ^ value
        for at, generator in enumerate(_GENERATOR):
            check ^= generator if (top >> at) & 1 else 0
    check ^= 1
    return descriptor + "#" + "".join(_CHECKSUM_CHARSET[(check >> 5 * (7 - at)) & 31] for at in range(8))


def _ranked(values: dict[bytes, int]) -> list[bytes]:
    return sorted(values, key=lambda outpoint: (-values[outpoint], outpoint))[:FUNDING_OUTPUTS_MAX]


class WatchingWallets:
    """The watch-only wallets: imports scripts in groups, and lists what pays to one."""

    def __init__(self, rpc: JsonRpc, network: Network, name: str, watched_max: int, clock: Callable[[], float]) -> None:
        self._rpc, self._network, self._name, self._clock = rpc, network, name, clock
        self._max = watched_max
        self._known: OrderedDict[bytes, str] = OrderedDict()  # script -> the wallet that has it, newest last
        self._count = 0  # descriptors in the current wallet, by our last look and our own imports since
        self._pending: dict[bytes, asyncio.Future[None]] = {}
        self._importing: asyncio.Task[None] | None = None
        self._places, self._counted_at = float(ASKED_BURST_MAX), clock()

    async def start(self) -> None:
        """Load or make the current wallet and the one before."""
        loaded = await self._loaded()
        listed = need_field(await self._rpc.call("listwalletdir"), "wallets", list)
        known = sorted({*loaded, *filter(None, (self._number(need_field(row, "name", str)) for row in listed))})
        for number in known[-2:]:
            if number not in loaded:
                await self._wallet_call("loadwallet", number, WALLET_ALREADY_LOADED, True)
        if not known:
            await self._create(1)
        await self._count_descriptors(max(known, default=1))

    async def stop(self) -> None:
        """End an import under way."""
        if self._importing is not None:
            self._importing.cancel()
            await asyncio.gather(self._importing, return_exceptions=True)

    async def watch(self, script_pubkey: bytes) -> None:
        """Return when the wallet has the script and has looked for it in the last hours' blocks and the mempool.

        Calls that come while an import is under way go together into the next: one look through the blocks for all.
        """
        if script_pubkey in self._known:
            self._known.move_to_end(script_pubkey)
            return
        if script_pubkey not in self._pending:
            if len(self._pending) >= PENDING_MAX:
                raise unavailable("Too many addresses wait for the Bitcoin node's wallet")
            self._pending[script_pubkey] = asyncio.get_running_loop().create_future()
        if self._importing is None or self._importing.done():
            self._importing = asyncio.create_task(self._import_pending())
        await asyncio.shield(self._pending[script_pubkey])

    async def unspent(self, script_pubkey: bytes) -> list[bytes]:
        """Return the outpoints of most value that pay to the script, mempool included, as the loaded wallets know them: who would
        crowd out a payer's output must pay more than the payer.

        Raises Unavailable("overloaded") if too many scripts were asked for lately, Unavailable("chain_unavailable").
        """
        if script_pubkey not in self._known and script_pubkey not in self._pending:
            self._take_place()
        await self.watch(script_pubkey)
        loaded = await self._loaded()
        if self._number(self._known.get(script_pubkey, "")) not in loaded:
            self._known.pop(script_pubkey, None)  # another worker has unloaded its wallet
            await self.watch(script_pubkey)
            loaded = await self._loaded()
        found: dict[bytes, int] = {}
        for number in loaded[-2:]:
            found |= await self._largest(number, script_pubkey)
        return _ranked(found)

    def _take_place(self) -> None:
        now = self._clock()
        gained = max(0.0, now - self._counted_at) * ASKED_PER_MINUTE / 60
        self._places, self._counted_at = min(float(ASKED_BURST_MAX), self._places + gained), now
        if self._places < 1:
            raise Unavailable("overloaded", "Too many new addresses are looked for; name the funding output, or try again later")
        self._places -= 1

    async def _largest(self, number: int, script_pubkey: bytes) -> dict[bytes, int]:
        """Return the value in satoshi of each outpoint that one wallet lists, those of most value among them."""
        address = p2sh_address(self._network, script_pubkey[2:22])
        found: dict[bytes, int] = {}
        least = 0
        for _ in range(LISTINGS_MAX):
            limits = {"minimumAmount": f"{least // COIN}.{least % COIN:08}", "maximumCount": LISTED_MAX}
            rows = need_list(await self._call(number, "listunspent", 0, 9_999_999, [address], True, limits), "listunspent")
            for row in rows:
                if need_bytes(need_field(row, "scriptPubKey", str), "scriptPubKey") == script_pubkey:
                    found[make_outpoint(need_hash(row, "txid"), need_field(row, "vout", int))] = need_amount(row, "amount")
            ranked = _ranked(found)
            if len(rows) < LISTED_MAX or not ranked:
                break
            least = max(found[ranked[-1]], least + 1)
        return found

    async def transaction(self, txid: bytes) -> tuple[int, str] | None:
        """Return confirmations (negative: a conflicting one is in a block) and hexadecimal of a transaction, None if unseen."""
        for number in reversed(await self._loaded()):
            answer = await self._call(number, "gettransaction", txid_hex(txid))
            if isinstance(answer, RpcError) and answer.code == METHOD_NOT_FOUND:
                return None
            if not is_absent(answer):
                return need_field(answer, "confirmations", int), need_field(answer, "hex", str)
        return None

    async def _import_pending(self) -> None:
        while self._pending:
            group, self._pending = self._pending, {}
            try:
                await self._import(list(group))
            except (Exception, asyncio.CancelledError) as error:
                for future in group.values():
                    if not future.done():
                        future.set_exception(error if isinstance(error, Exception) else unavailable("Shutting down"))
                        future.exception()  # whoever waited may have gone
                if isinstance(error, asyncio.CancelledError):
                    raise
            else:
                for future in group.values():
                    if not future.done():
                        future.set_result(None)

    async def _import(self, scripts: list[bytes]) -> None:
        number = await self._current()
        since = int(self._clock()) - RESCAN_SECONDS
        requests = [{"desc": with_checksum(f"raw({script.hex()})"), "timestamp": since} for script in scripts]
        for row in need_rows(await self._call_while_rescanning(number, requests), len(requests)):
            if not need_field(row, "success", bool):
                raise unavailable("The Bitcoin node's wallet refuses to watch an address")
        self._count += len(scripts)
        for script in scripts:
            self._known[script] = self._wallet(number)
        while len(self._known) > self._max:
            self._known.popitem(last=False)

    async def _call_while_rescanning(self, number: int, requests: list[dict[str, object]]) -> object:
        """Import; while the wallet is busy with another worker's import, wait."""
        for _ in range(RESCAN_TRIES):
            answer = await self._call(number, "importdescriptors", requests, timeout=IMPORT_SECONDS_MAX)
            if not (isinstance(answer, RpcError) and answer.code == WALLET_ERROR and "rescan" in answer.message):
                return answer
            await asyncio.sleep(RESCAN_DELAY)
        raise unavailable("The Bitcoin node's wallet is busy with another rescan")

    async def _current(self) -> int:
        """Return the wallet to import into; a full one makes place for the next."""
        loaded = await self._loaded()
        if not loaded:
            await self.start()
            loaded = await self._loaded()
        number = loaded[-1] if loaded else 1
        if self._count < self._max or await self._count_descriptors(number) < self._max:
            return number
        await self._create(number + 1)
        for old in loaded[:-1]:
            await self._wallet_call("unloadwallet", old, WALLET_NOT_FOUND, False)
        return number + 1

    async def _count_descriptors(self, number: int) -> int:
        """Count what a wallet watches, and forget what we took it to watch but is not there: the node may be another one."""
        rows = need_field(await self._call(number, "listdescriptors"), "descriptors", list)
        watched = {need_field(row, "desc", str).partition("#")[0] for row in rows}
        for script in [script for script, wallet in self._known.items() if wallet == self._wallet(number)]:
            if f"raw({script.hex()})" not in watched:
                del self._known[script]
        self._count = len(rows)
        return self._count

    async def _create(self, number: int) -> None:
        """Make a wallet: no private keys, blank, no passphrase, no avoid_reuse, descriptors, loaded at the node's start."""
        arguments = (True, True, "", False, True, True)
        await self._wallet_call("createwallet", number, WALLET_ERROR, *arguments)
        if number not in await self._loaded():  # another worker made it, or it was unloaded
            await self._wallet_call("loadwallet", number, WALLET_ALREADY_LOADED, True)
        self._count = 0

    async def _wallet_call(self, method: str, number: int, accepted: int, *arguments: object) -> None:
        """Create, load or unload a wallet; the error `accepted` means that it is so already."""
        try:
            await self._rpc.call(method, self._wallet(number), *arguments, timeout=IMPORT_SECONDS_MAX)
        except RpcError as error:
            if error.code != accepted:
                need(error)

    async def _loaded(self) -> list[int]:
        """Return the numbers of our loaded wallets, ascending."""
        try:
            names = await self._rpc.call("listwallets")
        except RpcError as error:
            if error.code == METHOD_NOT_FOUND:
                raise unavailable("The Bitcoin node runs without wallets (disablewallet): it cannot find funding") from error
            raise unavailable(f"The Bitcoin node answers: {clean(error.message)} ({error.code})") from error
        ours = (self._number(name) for name in need_list(names, "listwallets") if isinstance(name, str))
        return sorted(filter(None, ours))

    def _number(self, name: str) -> int:
        """Return the number of one of our wallets, 0 for another's."""
        head, _, tail = name.rpartition("-")
        return int(tail) if head == self._name and re.fullmatch(r"[1-9][0-9]{0,8}", tail) else 0

    def _wallet(self, number: int) -> str:
        return f"{self._name}-{number}"

    async def _call(self, number: int, method: str, *parameters: object, timeout: float = 0) -> object:
        (answer,) = await self._rpc.batch([(method, *parameters)], path=f"/wallet/{self._wallet(number)}", timeout=timeout)
        return answer
