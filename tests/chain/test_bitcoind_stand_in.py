"""The node backend against what Bitcoin Core documents and bcoin lacks, and against bad answers; see core_stand_in.py."""

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from bitcoin.core import CBlockHeader, CoreMainParams, CoreRegTestParams, CoreTestNetParams, COutPoint, CTransaction, CTxIn, CTxOut
from bitcoin.core.script import CScript

from paychan.chain.base import FUNDING_OUTPUTS_MAX, UNKNOWN, BroadcastRefused, FundingRequest, Spender
from paychan.chain.bitcoind import BitcoindChain
from paychan.chain.jsonrpc import BODY_SIZE_MAX, JsonRpc, parse_amount
from paychan.chain.wallets import LISTED_MAX, LISTINGS_MAX, with_checksum
from paychan.core.channel import ChannelTerms
from paychan.core.errors import Unavailable
from paychan.core.funding import WHOLE_SIZE_MAX
from paychan.core.network import BY_NAME, REGTEST, p2sh_address
from paychan.core.outpoint import make_outpoint
from paychan.core.script import p2sh_script_pubkey
from paychan.core.units import COIN
from tests.chain.core_stand_in import BLOCK_HASH, TIP_HEIGHT, TIP_TIME, CoreError, CoreStandIn, btc
from tests.chain.esplora_stand_in import whole

NOW = 1_800_000_123
TERMS_KEYS = b"\x02" + b"\x11" * 32, b"\x03" + b"\x22" * 32
WALLET = "paychan-watch-1"
ABSENT = CoreError(-5, "No such mempool transaction. Use -txindex or provide a block hash to enable blockchain queries.")
Scenario = Callable[[CoreStandIn, BitcoindChain], Awaitable[None]]


def play(scenario: Scenario, *, start: bool = True, network: str = "regtest", timeout: float = 5, **options: Any) -> None:
    """Run a scenario against a new stand-in and a backend connected to it."""

    async def run() -> None:
        async with CoreStandIn(network) as core:
            login = {} if "cookie" in options else {"user": core.user, "password": core.password}
            settings = {"timeout": timeout, "clock": lambda: NOW, **login, **options}
            chain = BitcoindChain("127.0.0.1", core.port, BY_NAME[network], **settings)
            if start:
                await chain.start()
                core.requests.clear()
            try:
                await asyncio.wait_for(scenario(core, chain), 20)
            finally:
                await chain.stop()

    asyncio.run(run())


def request(number: int = 0, outpoint: bytes | None = None) -> FundingRequest:
    script = b"\xa9\x14" + number.to_bytes(20, "big") + b"\x87"
    return FundingRequest(TERMS_KEYS[1], 1_900_000_000, script, outpoint)


FUNDING = CTransaction([CTxIn(COutPoint(b"\x77" * 32, 1))], [CTxOut(5_000_000, CScript(b"\x51"))])
OUTPOINT = make_outpoint(FUNDING.GetTxid(), 0)
TERMS = ChannelTerms(OUTPOINT, *TERMS_KEYS, 1_900_000_000, 5_000_000, b"")
FUNDING_ID = FUNDING.GetTxid()[::-1].hex()
SPENDER = b"\x88" * 32


def output(script: bytes, value: str = "0.05000000", confirmations: int = 3, **more: Any) -> dict[str, Any]:
    """Return an answer of gettxout."""
    answer = {"bestblock": BLOCK_HASH, "confirmations": confirmations, "value": btc(value), "coinbase": False}
    return {**answer, "scriptPubKey": {"hex": script.hex(), "type": "scripthash"}, **more}


def row(number: int, vout: int, wallet: str = WALLET, satoshi: int = 5_000_000) -> dict[str, Any]:
    """Return one row of listunspent, with the wallet that has it."""
    script = request(number).script_pubkey
    address = p2sh_address(REGTEST, script[2:22])
    amount = btc(f"{satoshi // COIN}.{satoshi % COIN:08}")
    return {
        "wallet": wallet,
        "address": address,
        "txid": FUNDING_ID,
        "vout": vout,
        "amount": amount,
        "scriptPubKey": script.hex(),
    }


# Starting


def test_the_genesis_hashes_are_those_of_the_networks() -> None:
    known = {"live": CoreMainParams, "test": CoreTestNetParams, "regtest": CoreRegTestParams}
    hashes = {name: params.GENESIS_BLOCK.GetHash() for name, params in known.items()}
    message = b"03/May/2024 000000000000000000001ebd58c244970b3aa9d783bb001011fbe8ea8e98e00e"
    script_sig = CScript(bytes.fromhex("04ffff001d01044c") + bytes((len(message),)) + message)
    coinbase = CTransaction([CTxIn(COutPoint(), script_sig)], [CTxOut(50 * COIN, CScript(b"\x21" + bytes(33) + b"\xac"))])
    hashes["testnet4"] = CBlockHeader(1, bytes(32), coinbase.GetTxid(), 1714777860, 0x1D00FFFF, 393743547).GetHash()
    satoshis = CoreMainParams.GENESIS_BLOCK.hashMerkleRoot
    hashes["signet"] = CBlockHeader(1, bytes(32), satoshis, 1598918400, 0x1E0377AE, 52613770).GetHash()
    assert {name: found[::-1].hex() for name, found in hashes.items()} == {
        name: network.genesis for name, network in BY_NAME.items()
    }


def _info(core: CoreStandIn, **changes: Any) -> None:
    core.results["getblockchaininfo"] = {**core.results["getblockchaininfo"], **changes}


def _replacing(core: CoreStandIn, major: int, told: object) -> None:
    """Be a release that says something else about replacing, or (None) nothing."""
    core.is_version(major)
    info = {name: value for name, value in core.results["getmempoolinfo"].items() if name != "fullrbf"}
    core.results["getmempoolinfo"] = info if told is None else {**info, "fullrbf": told}


TROUBLES: dict[str, tuple[str, Callable[[CoreStandIn], None]]] = {
    "initial block download": ("still syncing", lambda core: _info(core, initialblockdownload=True)),
    "headers far ahead": ("still syncing: 50 blocks behind", lambda core: _info(core, headers=TIP_HEIGHT + 50)),
    "little verified": ("still syncing", lambda core: _info(core, verificationprogress=0.5)),
    "too little verified for a float": ("still syncing", lambda core: _info(core, verificationprogress=-(10**400))),
    "too much verified for a float": (
        "still syncing: 50 blocks behind",
        lambda core: _info(core, headers=TIP_HEIGHT + 50, verificationprogress=10**400),
    ),
    "other genesis": ("another network", lambda core: core.results.update(getblockhash="00" * 32)),
    "other chain": ("another network than .*: its chain is signet", lambda core: _info(core, chain="signet")),
    "no chain": ("chain is missing", lambda core: _info(core, chain=None)),
    "old version": ("version is 240100", lambda core: core.results.update(getnetworkinfo={"version": 240100})),
    "no version": ("version is missing", lambda core: core.results.update(getnetworkinfo={"version": "25.0"})),
    "Core 25 as it is": ("replaces no transactions", lambda core: core.is_version(25)),
    "Core 27 as it is": ("replaces no transactions.*mempoolfullrbf=1", lambda core: core.is_version(27)),
    "Core 28 that was told not to": ("replaces no transactions", lambda core: core.is_version(28, full_rbf=False)),
    "old and silent about replacing": ("replaces no transactions", lambda core: _replacing(core, 27, None)),
    "malformed about replacing": ("replaces no transactions", lambda core: _replacing(core, 29, 1)),
    "warming up": (
        r"Loading block index.* \(-28\)",
        lambda core: core.results.update(getblockhash=CoreError(-28, "Loading block index…")),
    ),
    "index unfinished": (
        "transaction index",
        lambda core: core.results.update(getindexinfo={"txindex": {"synced": False, "best_block_height": 5}}),
    ),
    "no wallets": ("disablewallet", lambda core: core.results.update(listwallets=CoreError(-32601, "Method not found"))),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_node_that_cannot_serve_is_refused_at_start_with_the_reason(trouble: str) -> None:
    reason, cause = TROUBLES[trouble]

    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        cause(core)
        with pytest.raises(Unavailable, match=reason) as caught:
            await chain.start()
        assert caught.value.code == "chain_unavailable" and core.password not in str(caught.value)

    play(scenario, start=False, network="test")


REPLACING: dict[str, Callable[[CoreStandIn], None]] = {
    "Core 25 that was told to": lambda core: core.is_version(25, full_rbf=True),
    "Core 27 that was told to": lambda core: core.is_version(27, full_rbf=True),
    "Core 28": lambda core: core.is_version(28),
    "Core 32": lambda core: core.is_version(32),
    "Core that no longer says so": lambda core: _replacing(core, 32, None),
}


@pytest.mark.parametrize("node", REPLACING)
def test_a_settlements_fee_is_raised_on_every_node_that_is_accepted(node: str) -> None:
    first, dearer = (CTransaction(FUNDING.vin, [CTxOut(value, CScript(b"\x51"))]) for value in (5000, 4000))

    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        REPLACING[node](core)
        await chain.start()
        for transaction in (first, dearer, dearer):
            await chain.broadcast(transaction.serialize())
        assert list(core.mempool.values()) == [dearer]

    play(scenario, start=False, network="test")


def test_a_node_that_replaces_nothing_serves_a_payer_and_regtest() -> None:
    """Nothing of theirs is signed again with a higher fee."""
    first, dearer = (CTransaction(FUNDING.vin, [CTxOut(value, CScript(b"\x51"))]) for value in (5000, 4000))

    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.is_version(25)
        await chain.start()
        await chain.broadcast(first.serialize())
        with pytest.raises(BroadcastRefused, match="txn-mempool-conflict"):
            await chain.broadcast(dearer.serialize())

    play(scenario, start=False, network="test", must_replace=False)
    play(scenario, start=False)


def test_a_node_that_falls_behind_later_has_no_tip() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        tip = await chain.tip()
        assert (tip.height, tip.block_hash, tip.time) == (TIP_HEIGHT, b"\xab" * 32, TIP_TIME)
        assert tip.median_time_past == TIP_TIME - 3000
        _info(core, headers=TIP_HEIGHT + 3)
        await chain.tip()
        _info(core, headers=TIP_HEIGHT + 4)
        with pytest.raises(Unavailable, match="still syncing"):
            await chain.tip()

    play(scenario)


@pytest.mark.parametrize("name", ["time", "mediantime", "blocks"])
@pytest.mark.parametrize("number", [-1, 1 << 32, 1 << 70])
def test_a_best_block_that_no_chain_has_is_not_believed(name: str, number: int) -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        _info(core, **{name: number, "headers": number if name == "blocks" else TIP_HEIGHT})
        with pytest.raises(Unavailable, match="out of range"):
            await chain.tip()

    play(scenario)


def test_the_first_wallet_is_blank_without_keys_and_loaded_at_startup() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        wallet = core.wallets[WALLET]
        assert list(core.wallets) == [WALLET]
        assert wallet["arguments"] == [True, True, "", False, True, True]  # no keys, blank, .., descriptors, on start-up

    play(scenario)


def test_the_last_two_wallets_are_loaded_at_start_and_no_older_ones() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        for number in (1, 2, 9, 10):
            core.wallets[f"paychan-watch-{number}"] = {"loaded": False, "imports": []}
        core.wallets["paychan-watch-x"] = {"loaded": False, "imports": []}
        await chain.start()
        await chain.start()
        assert [name for name, wallet in core.wallets.items() if wallet["loaded"]] == ["paychan-watch-9", "paychan-watch-10"]

    play(scenario, start=False)


# Watching


def test_descriptor_checksums_are_those_of_bip_380() -> None:
    assert with_checksum("raw(deadbeef)") == "raw(deadbeef)#89f8spxm"


def test_watching_imports_the_script_once_from_two_hours_before_now() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        for _ in range(3):
            await chain.find_funding(request(5))
        (imported,) = core.wallets[WALLET]["imports"]
        assert imported == {"desc": with_checksum(f"raw({request(5).script_pubkey.hex()})"), "timestamp": NOW - 7200}

    play(scenario)


def test_watches_that_come_during_an_import_share_the_next_one() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.import_gate.clear()
        tasks = [asyncio.create_task(chain.find_funding(request(0)))]
        while not core.calls("importdescriptors"):
            await asyncio.sleep(0)
        tasks += [asyncio.create_task(chain.find_funding(request(number))) for number in range(1, 50)]
        await asyncio.sleep(0)
        core.import_gate.set()
        await asyncio.gather(*tasks)
        assert [len(parameters[0]) for parameters in core.calls("importdescriptors")] == [1, 49]

    play(scenario)


def test_an_import_waits_for_another_workers_rescan_and_fails_for_other_errors() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.import_errors.append(CoreError(-4, "Wallet is currently rescanning. Abort existing rescan or wait."))
        await chain.find_funding(request(1))
        core.import_errors.append(CoreError(-4, "Wallet has no room"))
        with pytest.raises(Unavailable, match="no room"):
            await chain.find_funding(request(2))
        await chain.find_funding(request(2))
        core.results["importdescriptors"] = [{"success": False, "error": {"code": -5, "message": "no"}}]
        with pytest.raises(Unavailable, match="refuses to watch"):
            await chain.find_funding(request(3))

    play(scenario)


def test_a_full_wallet_is_followed_by_a_new_one_and_the_one_before_is_unloaded() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        for number in range(7):
            await chain.find_funding(request(number))
        state = {name[-1]: (len(w["imports"]), w["loaded"], w["on_startup"]) for name, w in core.wallets.items()}
        assert state == {"1": (2, False, False), "2": (2, False, False), "3": (2, True, True), "4": (1, True, True)}

    play(scenario, watched_max=2)


def test_a_wallet_that_another_worker_filled_is_not_overfilled_after_a_restart() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.wallets[WALLET] = {"loaded": True, "imports": [{"desc": "x"}] * 5}
        await chain.start()
        await chain.find_funding(request(1))
        assert [len(wallet["imports"]) for wallet in core.wallets.values()] == [5, 1]

    play(scenario, start=False, watched_max=5)


def test_funding_is_found_in_the_current_and_the_previous_wallet() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        for number in range(3):
            await chain.find_funding(request(number))
        core.unspent = [row(1, 0), row(2, 7, "paychan-watch-2")]
        core.results["gettxout"] = lambda txid, vout: output(request(1 if vout == 0 else 2).script_pubkey)
        for number, vout in ((1, 0), (2, 7)):
            (found,) = await chain.find_funding(request(number))
            assert found.outpoint == make_outpoint(FUNDING.GetTxid(), vout)

    play(scenario, watched_max=2)


def test_a_script_whose_wallet_another_worker_unloaded_is_imported_anew() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        await chain.find_funding(request(1))
        core.wallets[WALLET]["loaded"] = False
        core.wallets["paychan-watch-2"] = {"loaded": True, "imports": []}
        core.unspent = [row(1, 0, "paychan-watch-2")]
        core.results["gettxout"] = output(request(1).script_pubkey)
        assert len(await chain.find_funding(request(1))) == 1
        assert len(core.wallets["paychan-watch-2"]["imports"]) == 1

    play(scenario)


def test_two_workers_make_one_wallet() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        login = {"user": core.user, "password": core.password}
        others = [BitcoindChain("127.0.0.1", core.port, REGTEST, **login) for _ in range(3)]
        await asyncio.gather(*(other.start() for other in others))
        assert list(core.wallets) == [WALLET]
        await asyncio.gather(*(other.stop() for other in others))

    play(scenario, start=False)


# Finding funding


def test_a_lookup_by_outpoint_is_one_request() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.results["gettxout"] = output(request().script_pubkey, coinbase=True)
        (found,) = await chain.find_funding(request(0, OUTPOINT))
        assert (found.outpoint, found.value, found.confirmations, found.is_coinbase) == (OUTPOINT, 5_000_000, 3, True)
        assert [[name for name, _ in batch] for batch in core.requests] == [["gettxout", "gettxspendingprevout"]]
        assert core.calls("gettxout") == [[FUNDING_ID, 0, True]]

    play(scenario)


def test_no_more_outputs_than_the_bound_are_looked_at() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.unspent = [row(1, vout) for vout in range(40)]
        core.results["gettxout"] = output(request(1).script_pubkey)
        assert len(await chain.find_funding(request(1))) == FUNDING_OUTPUTS_MAX

    play(scenario)


DECOYS = {
    "as many as are looked at": [546] * FUNDING_OUTPUTS_MAX,
    "a page": [546] * LISTED_MAX,
    "many pages of dust": [546] * 5 * LISTED_MAX,
    "more and more worth": [*range(546, 546 + 3 * LISTED_MAX)],
    "less and less worth": [*range(3 * LISTED_MAX, 0, -1)],
    "larger ones among them": [546] * LISTED_MAX + [6_000_000] * (FUNDING_OUTPUTS_MAX - 1) + [547] * LISTED_MAX,
}


@pytest.mark.parametrize("decoys", DECOYS)
@pytest.mark.parametrize("is_last", [True, False], ids=["listed last", "listed first"])
def test_decoys_do_not_crowd_out_a_payers_output(decoys: str, is_last: bool) -> None:
    """The node lists in no order that means anything; the worst is that the payer's output comes last."""

    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        values = [*DECOYS[decoys], 5_000_000] if is_last else [5_000_000, *DECOYS[decoys]]
        core.unspent = [row(1, vout, satoshi=value) for vout, value in enumerate(values)]
        core.results["gettxout"] = lambda txid, vout: output(
            request(1).script_pubkey, f"{values[vout] // COIN}.{values[vout] % COIN:08}"
        )
        found = [found.value for found in await chain.find_funding(request(1))]
        assert found == sorted(values, reverse=True)[:FUNDING_OUTPUTS_MAX]
        assert 5_000_000 in found
        assert all(len(call[4]) == 2 and call[4]["maximumCount"] == LISTED_MAX for call in core.calls("listunspent"))
        assert len(core.calls("listunspent")) <= LISTINGS_MAX

    play(scenario)


def test_what_the_wallet_lists_counts_only_as_gettxout_confirms_it() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.unspent = [row(1, 0), row(1, 1), row(1, 2), row(1, 3), {**row(1, 4), "scriptPubKey": "51"}]
        answers = {0: None, 1: output(b"\x51"), 2: output(request(1).script_pubkey), 3: output(request(1).script_pubkey)}
        core.results["gettxout"] = lambda txid, vout: answers[vout]
        core.results["gettxspendingprevout"] = lambda outputs: [
            {**out, "spendingtxid": "99" * 32} if out["vout"] == 3 else out for out in outputs
        ]
        (found,) = await chain.find_funding(request(1))
        assert found.outpoint == make_outpoint(FUNDING.GetTxid(), 2)

    play(scenario)


# Amounts

GOOD_AMOUNTS = {
    "0.10000000": 10_000_000,
    "0.1": 10_000_000,
    "0.30000000": 30_000_000,  # 0.1 + 0.2 in binary floating point is more
    "0.00000001": 1,
    "1e-8": 1,
    "1.1": 110_000_000,
    "4.35": 435_000_000,  # 4.35 * 1e8 in binary floating point is less
    "20999999.97690000": 2_099_999_997_690_000,
    "20999999.9769": 2_099_999_997_690_000,
    "21000000": 2_100_000_000_000_000,
    "0": 0,
    "0.00000000000": 0,
    "1": 100_000_000,
}
BAD_AMOUNTS = (
    "0.000000001",
    "0.123456789",
    "20999999.976900001",
    "21000000.00000001",
    "21000001",
    "-0.1",
    "-1",
    "1e400",
    "1e-400",
    '"0.1"',
    "true",
    "null",
    "[]",
    "0." + "1" * 100,
    "1e999999999999999999",
)


def _number(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


@pytest.mark.parametrize("text", GOOD_AMOUNTS)
def test_amounts_become_exact_satoshi(text: str) -> None:
    assert parse_amount(_number(text)) == GOOD_AMOUNTS[text]

    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.results["gettxout"] = output(request().script_pubkey, text)
        (found,) = await chain.find_funding(request(0, OUTPOINT))
        assert found.value == GOOD_AMOUNTS[text] and type(found.value) is int

    play(scenario)


@pytest.mark.parametrize("text", BAD_AMOUNTS)
def test_other_amounts_are_refused_not_rounded(text: str) -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        script = request().script_pubkey.hex()
        answer = f'{{"value":{text},"scriptPubKey":{{"hex":"{script}"}},"confirmations":1,"coinbase":false}}'
        prevout = f'{{"txid":"{FUNDING_ID}","vout":0}}'
        body = f'[{{"result":{answer},"error":null,"id":0}},{{"result":[{prevout}],"error":null,"id":1}}]'.encode()
        core.raw = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        with pytest.raises(Unavailable, match="value is no amount|no JSON-RPC"):
            await chain.find_funding(request(0, OUTPOINT))

    play(scenario)


def test_every_amount_in_satoshi_survives_the_way_through_decimals() -> None:
    source = random.Random(5)
    for _ in range(2000):
        satoshi = source.randrange(21 * 10**14 + 1)
        assert parse_amount(_number(f"{satoshi // 10**8}.{satoshi % 10**8:08}")) == satoshi


# Fees


@pytest.mark.parametrize(
    ("estimate", "mempool_minimum", "fee"),
    [
        ({"feerate": btc("0.00012345"), "blocks": 6}, "0.00001000", 13),
        ({"feerate": btc("0.00012000"), "blocks": 6}, "0.00001000", 12),
        ({"feerate": btc("0.00000100"), "blocks": 6}, "0.00000100", 1),
        ({"feerate": btc("0.00002000"), "blocks": 6}, "0.00050001", 51),
        ({"feerate": btc("0.00012345"), "blocks": 2}, "0.00001000", 13),
        ({"feerate": btc("0.00002000"), "blocks": 7}, "0.00001000", None),
        ({"errors": ["Insufficient data or no feerate found"], "blocks": 6}, "0.00003000", None),
    ],
)
def test_the_fee_is_rounded_up_and_at_least_what_the_mempool_asks(estimate: Any, mempool_minimum: str, fee: int | None) -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.results["estimatesmartfee"] = estimate
        core.results["getmempoolinfo"] = {"mempoolminfee": btc(mempool_minimum), "minrelaytxfee": btc("0.00000100")}
        assert await chain.fee_per_byte(6) == fee

    play(scenario)


def test_the_fee_target_stays_in_the_nodes_range_and_an_empty_answer_is_unavailable() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.results["estimatesmartfee"] = {"feerate": btc("0.00001"), "blocks": 2}
        for blocks in (-1, 0, 1, 6, 5000):
            await chain.fee_per_byte(blocks)
        assert [call[0] for call in core.calls("estimatesmartfee")] == [1, 1, 1, 6, 1008]
        for answer in ({"blocks": 2}, {"feerate": btc("-1"), "blocks": 2}, [], CoreError(-32603, "Fee estimation disabled")):
            core.results["estimatesmartfee"] = answer
            with pytest.raises(Unavailable):
                await chain.fee_per_byte(6)

    play(scenario)


# Broadcasting

RAW = FUNDING.serialize()
RAW_ID = CTransaction.deserialize(RAW).GetTxid()
ACCEPTED: dict[str, dict[str, Any]] = {
    "new": {},
    "in the mempool": {"testmempoolaccept": [{"allowed": False, "reject-reason": "txn-already-in-mempool"}]},
    "confirmed": {
        "testmempoolaccept": [{"allowed": False, "reject-reason": "txn-already-known"}],
        "sendrawtransaction": CoreError(-27, "Transaction outputs already in utxo set"),
    },
    "confirmed since the test": {"sendrawtransaction": CoreError(-27, "Transaction already in block chain")},
    "confirmed and its outputs spent": {
        "testmempoolaccept": [{"allowed": False, "reject-reason": "missing-inputs"}],
        "getrawtransaction": {"confirmations": 4, "blockhash": BLOCK_HASH, "hex": RAW.hex()},
    },
    "node without a test": {"testmempoolaccept": CoreError(-32601, "Method not found")},
}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "dust": ("^dust$", {"testmempoolaccept": [{"allowed": False, "reject-reason": "dust"}]}),
    "refund too early": ("non-final", {"testmempoolaccept": [{"allowed": False, "reject-reason": "non-final"}]}),
    "missing inputs": ("missing-inputs", {"testmempoolaccept": [{"allowed": False, "reject-reason": "missing-inputs"}]}),
    "undecodable": ("TX decode failed", {"testmempoolaccept": CoreError(-22, "TX decode failed. Make sure ..")}),
    "verify error": ("missingorspent", {"sendrawtransaction": CoreError(-25, "bad-txns-inputs-missingorspent")}),
    "rejected": ("min relay fee", {"sendrawtransaction": CoreError(-26, "min relay fee not met, 10 < 331")}),
    "full": ("mempool min fee", {"testmempoolaccept": [{"allowed": False, "reject-reason": "mempool min fee not met"}]}),
    "cheaper": ("insufficient", {"testmempoolaccept": [{"allowed": False, "reject-reason": "insufficient fee"}]}),
    "diagram": ("replacement-failed", {"testmempoolaccept": [{"allowed": False, "reject-reason": "replacement-failed"}]}),
    "no full RBF": ("conflict", {"testmempoolaccept": [{"allowed": False, "reject-reason": "txn-mempool-conflict"}]}),
}
FOR_FEE = ("rejected", "full", "cheaper", "diagram")


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_the_node_has_or_takes_is_broadcast(case: str) -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.results.update(ACCEPTED[case])
        await chain.broadcast(RAW)
        if case in ("new", "in the mempool", "node without a test"):
            assert core.calls("sendrawtransaction") == [[RAW.hex()]]

    play(scenario)


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_carries_the_nodes_reason(case: str) -> None:
    reason, results = REFUSED[case]

    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.results.update(results)
        with pytest.raises(BroadcastRefused, match=reason) as caught:
            await chain.broadcast(RAW)
        assert caught.value.for_fee == (case in FOR_FEE)

    play(scenario)


def test_a_reason_is_bounded_and_printable_and_other_errors_are_no_refusal() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.results["sendrawtransaction"] = CoreError(-26, "no\r\nSet-Cookie: \x00é" + "x" * 5000)
        with pytest.raises(BroadcastRefused) as caught:
            await chain.broadcast(RAW)
        assert str(caught.value).isprintable() and str(caught.value).isascii() and len(str(caught.value)) == 200
        core.results["sendrawtransaction"] = CoreError(-28, "Verifying blocks")
        with pytest.raises(Unavailable, match="Verifying"):
            await chain.broadcast(RAW)

    play(scenario)


# What is in a settlement's way


def test_a_spender_in_the_mempool_comes_with_the_fees_of_all_that_hangs_on_it() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.results["getrawtransaction"] = lambda txid: RAW.hex()
        fees = {"base": btc("0.00003480"), "ancestor": btc("0.00003480"), "descendant": btc("0.00103480")}
        core.results["getmempoolentry"] = {"vsize": 348, "fees": fees}
        assert await chain.spender(RAW_ID) == Spender(RAW, 103_480)
        core.results["getmempoolentry"] = {"size": 348, "fee": btc("0.00003480")}  # a node of another kind
        assert await chain.spender(RAW_ID) == Spender(RAW)
        core.results["getmempoolentry"] = {"fees": {**fees, "descendant": "many"}}
        with pytest.raises(Unavailable, match="descendant is no amount"):
            await chain.spender(RAW_ID)

    play(scenario)


def test_a_spender_in_a_block_is_found_by_index_by_wallet_or_by_its_block() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.results["getmempoolentry"] = CoreError(-5, "Transaction not in mempool")
        core.results["getrawtransaction"] = RAW.hex()
        assert await chain.spender(RAW_ID) == Spender(RAW)
        await _restart(core, chain, NO_INDEX)
        assert await chain.spender(RAW_ID) == Spender()
        core.wallet_transactions = {RAW_ID[::-1].hex(): {"confirmations": 3, "hex": RAW.hex()}}
        assert await chain.spender(RAW_ID) == Spender(RAW)
        core.wallet_transactions = {}
        core.results["gettxout"] = lambda txid, vout, mempool: output(b"\x51", "1", 5) if not mempool else None
        core.results["getrawtransaction"] = lambda *asked: RAW.hex() if asked[2:] == (f"{TIP_HEIGHT - 4:064x}",) else ABSENT
        assert await chain.spender(RAW_ID) == Spender(RAW)
        other = CTransaction([CTxIn(COutPoint(b"\x77" * 32, 1))], [CTxOut(4_000_000, CScript(b"\x51"))])
        core.results["getrawtransaction"] = lambda *asked: other.serialize().hex()
        with pytest.raises(Unavailable, match="another transaction"):
            await chain.spender(RAW_ID)

    play(scenario)


def test_the_mempool_says_what_it_asks_of_everything() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        assert await chain.relay_fee_per_kb() == 1000
        core.results["getmempoolinfo"] = {"mempoolminfee": btc("0.00027001"), "minrelaytxfee": btc("0.00001000")}
        assert await chain.relay_fee_per_kb() == 27_001

    play(scenario)


# What became of the funding

SCRIPT = p2sh_script_pubkey(TERMS.redeem_script)
NO_INDEX: dict[str, Any] = {"getindexinfo": {}, "getrawtransaction": ABSENT}


async def _restart(core: CoreStandIn, chain: BitcoindChain, results: dict[str, Any]) -> None:
    core.results.update(results)
    await chain.start()
    core.requests.clear()


def test_a_confirmed_spender_is_named_where_the_node_has_an_index_of_spenders() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        spender = {"spendingtxid": SPENDER.hex(), "blockhash": BLOCK_HASH}
        core.results["gettxspendingprevout"] = lambda outputs: [{**outputs[0], **spender}]
        core.results["getrawtransaction"] = lambda txid: {
            "blockhash": BLOCK_HASH,
            "confirmations": 2 if txid == SPENDER.hex() else 9,
        }
        status = await chain.funding_status(TERMS)
        assert (status.confirmations, status.is_spent, status.spent_by, status.spent_confirmations) == (9, True, SPENDER, 2)

    play(scenario)


def test_a_transaction_in_a_block_that_was_reorganised_away_is_unknown() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.results["getrawtransaction"] = {"blockhash": BLOCK_HASH, "confirmations": 0}
        assert await chain.confirmations(TERMS, SPENDER) == UNKNOWN
        core.results["getrawtransaction"] = {"txid": SPENDER.hex()}  # in the mempool: neither key
        assert await chain.confirmations(TERMS, SPENDER) == 0
        status = await chain.funding_status(TERMS, SPENDER)
        assert (status.is_spent, status.spent_confirmations) == (True, 0)

    play(scenario)


@pytest.mark.parametrize(("told", "confirmations"), [(7, 7), (0, UNKNOWN), (-3, UNKNOWN)])
def test_without_an_index_the_wallet_tells_confirmations(told: int, confirmations: int) -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        await _restart(core, chain, NO_INDEX)
        core.wallet_transactions = {SPENDER.hex(): {"confirmations": told, "hex": "00"}}
        assert await chain.confirmations(TERMS, SPENDER) == confirmations

    play(scenario)


def test_without_an_index_an_unspent_output_tells_confirmations() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        await _restart(core, chain, NO_INDEX)
        assert await chain.confirmations(TERMS, SPENDER) == UNKNOWN
        core.results["gettxout"] = lambda txid, vout, mempool: output(b"\x51", "1", 5) if vout == 1 and not mempool else None
        assert await chain.confirmations(TERMS, SPENDER) == 5

    play(scenario)


def test_without_an_index_spent_and_vanished_are_told_apart_by_the_wallet_or_not_at_all() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        await _restart(core, chain, NO_INDEX)
        with pytest.raises(Unavailable, match="txindex=1"):
            await chain.funding_status(TERMS)
        core.wallet_transactions = {FUNDING_ID: {"confirmations": 8, "hex": RAW.hex()}}
        status = await chain.funding_status(TERMS)
        assert (status.confirmations, status.is_spent, status.spent_by) == (8, True, b"")
        core.wallet_transactions = {FUNDING_ID: {"confirmations": -2, "hex": RAW.hex()}}
        status = await chain.funding_status(TERMS)
        assert (status.confirmations, status.is_spent) == (UNKNOWN, False)

    play(scenario)


def test_a_funding_that_only_its_spender_proves_is_as_old_as_the_spender() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        await _restart(core, chain, NO_INDEX)
        core.wallet_transactions = {SPENDER.hex(): {"confirmations": 7, "hex": "00"}}
        status = await chain.funding_status(TERMS, SPENDER)
        assert (status.confirmations, status.is_spent, status.spent_by, status.spent_confirmations) == (7, True, SPENDER, 7)

    play(scenario)


def test_a_node_that_contradicts_itself_about_the_funding_is_unavailable() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.results["gettxout"] = lambda txid, vout, mempool: None if mempool else output(SCRIPT)
        with pytest.raises(Unavailable, match="contradicts itself"):
            await chain.funding_status(TERMS)
        core.results["gettxout"] = output(b"\x51")
        with pytest.raises(Unavailable, match="another script"):
            await chain.funding_status(TERMS)

    play(scenario)


# The funding transaction


def test_the_funding_transaction_comes_from_the_wallet_where_there_is_no_index() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        await _restart(core, chain, NO_INDEX)
        core.wallet_transactions = {FUNDING_ID: {"confirmations": 8, "hex": RAW.hex()}}
        assert await chain.funding_transaction(TERMS) == RAW

    play(scenario)


def test_the_funding_transaction_comes_from_its_block_where_only_the_output_is_known() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        await _restart(core, chain, NO_INDEX)
        block = f"{TIP_HEIGHT - 9:064x}"
        core.results["gettxout"] = output(SCRIPT, confirmations=10)
        core.results["getrawtransaction"] = lambda *parameters: RAW.hex() if parameters[2:] == (block,) else ABSENT
        assert await chain.funding_transaction(TERMS) == RAW
        assert core.calls("getrawtransaction") == [[FUNDING_ID, 0], [FUNDING_ID, 0, block]]

    play(scenario)


@pytest.mark.parametrize("witness", [b"\x00", bytes(WHOLE_SIZE_MAX - len(RAW))], ids=len)
@pytest.mark.parametrize("way", ["index", "wallet", "block"])
def test_the_funding_transaction_comes_without_its_witness_whichever_way_it_comes(way: str, witness: bytes) -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        text = whole(FUNDING, witness).hex()
        if way == "index":
            core.results["getrawtransaction"] = text
        elif way == "wallet":
            core.wallet_transactions = {FUNDING_ID: {"confirmations": 8, "hex": text}}
        else:
            core.results["gettxout"] = output(SCRIPT, confirmations=10)
            core.results["getrawtransaction"] = lambda *parameters: text if parameters[2:] else ABSENT
        assert await chain.funding_transaction(TERMS) == RAW

    play(scenario)


def test_a_pruned_node_without_the_funding_transaction_says_so() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        _info(core, pruned=True)
        await _restart(core, chain, NO_INDEX)
        core.results["gettxout"] = output(SCRIPT, confirmations=10)
        pruned = CoreError(-1, "Block not available (pruned data)")
        core.results["getrawtransaction"] = lambda *parameters: pruned if parameters[2:] else ABSENT
        with pytest.raises(Unavailable, match="it is pruned"):
            await chain.funding_transaction(TERMS)
        assert len(core.calls("getrawtransaction")) == 2

    play(scenario)


@pytest.mark.parametrize("answer", ["00" * 60, "", "zz", 5, RAW[:-1].hex(), CTransaction().serialize().hex()])
def test_another_transaction_than_the_funding_is_not_passed_on(answer: Any) -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.results["getrawtransaction"] = answer
        with pytest.raises(Unavailable):
            await chain.funding_transaction(TERMS)

    play(scenario)


# The connection


def test_a_new_cookie_is_read_when_the_node_restarts(tmp_path: Path) -> None:
    cookie = tmp_path / ".cookie"
    cookie.write_text("__cookie__:first\n")

    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        await chain.tip()
        core.password = "second"
        with pytest.raises(Unavailable, match="refuses our credentials"):
            await chain.tip()
        cookie.write_text("__cookie__:second")
        await chain.tip()
        cookie.unlink()
        with pytest.raises(Unavailable, match="cookie file cannot be read"):
            await chain.tip()

    play(scenario, cookie=cookie)


def test_kept_connections_are_used_again_and_replaced_when_the_node_closed_them() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        before = core.connections
        for _ in range(10):
            await chain.tip()
        assert core.connections == before
        core.close_after_answer = True
        for _ in range(3):
            await chain.tip()
            await asyncio.sleep(0.01)  # the end of the connection may be seen or not: both must work
        core.close_before_answer = True
        with pytest.raises(Unavailable, match="closed the connection"):
            await chain.tip()

    play(scenario)


def test_connections_are_bounded() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        await asyncio.gather(*(chain.tip() for _ in range(100)))
        assert 1 < core.connections_peak <= 3

    play(scenario, connections_max=3)


def test_a_silent_node_is_unavailable_after_the_timeout() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.silent = True
        with pytest.raises(Unavailable, match="did not answer in time"):
            await chain.tip()
        core.silent = False
        await chain.tip()

    play(scenario, timeout=0.3)


def test_nobody_listening_is_unavailable() -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        rpc = JsonRpc("127.0.0.1", 1, user="a", password="b", timeout=3)
        with pytest.raises(Unavailable, match="cannot be reached"):
            await rpc.call("getblockcount")

    play(scenario)


GOOD_BODY = b'[{"result":7,"error":null,"id":0}]'


def _http(body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n") -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


UNDERSTOOD = {
    "plain": _http(GOOD_BODY),
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=1\r\n"
    + GOOD_BODY[:5]
    + b"\r\n%X\r\n" % len(GOOD_BODY[5:])
    + GOOD_BODY[5:]
    + b"\r\n0\r\nTrailer: 1\r\n\r\n",
    "JSON-RPC 2.0": _http(b'[{"jsonrpc":"2.0","result":7,"id":0}]'),
    "no reason phrase": _http(GOOD_BODY, b"HTTP/1.1 200\r\n"),
}
MALFORMED = {
    "no size": b"HTTP/1.1 200 OK\r\n\r\n" + GOOD_BODY,
    "two sizes": _http(GOOD_BODY, b"HTTP/1.1 200 OK\r\nContent-Length: 34\r\n"),
    "size and chunks": _http(GOOD_BODY, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"),
    "unknown encoding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n" + GOOD_BODY,
    "signed size": b"HTTP/1.1 200 OK\r\nContent-Length: +34\r\n\r\n" + GOOD_BODY,
    "huge size": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (BODY_SIZE_MAX + 1),
    "huge chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
    "negative chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    "chunk without its end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[]\r\n0\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    "cut head": b"HTTP/1.1 200",
    "cut body": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + GOOD_BODY,
    "old protocol": _http(GOOD_BODY, b"HTTP/1.0 200 OK\r\n"),
    "no HTTP": b"\x16\x03\x01\r\n\r\n",
    "space before the colon": _http(GOOD_BODY, b"HTTP/1.1 200 OK\r\nContent-Type : x\r\n"),
    "no JSON": _http(b"<html>"),
    "not UTF-8": _http(b'[{"result":"\xff","error":null,"id":0}]'),
    "NaN": _http(b'[{"result":NaN,"error":null,"id":0}]'),
    "deep": _http(b"[" * 200_000),
    "wrong id": _http(b'[{"result":7,"error":null,"id":1}]'),
    "no id": _http(b'[{"result":7,"error":null}]'),
    "too many answers": _http(b'[{"result":7,"error":null,"id":0},{"result":7,"error":null,"id":0}]'),
    "no answers": _http(b"[]"),
    "number": _http(b"7"),
    "no result": _http(b'[{"error":null,"id":0}]'),
    "malformed error": _http(b'[{"result":null,"error":{"code":"x","message":5},"id":0}]'),
    "text for an error": _http(b'[{"result":null,"error":"no","id":0}]'),
    "single answer": _http(b'{"result":7,"error":null,"id":0}'),
    "forbidden": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    "busy": _http(b"Work queue depth exceeded", b"HTTP/1.1 503 Service Unavailable\r\n"),
    "nothing": b"",
}


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_every_valid_form_of_answer_is_understood(case: str) -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.raw = UNDERSTOOD[case]
        rpc = JsonRpc("127.0.0.1", core.port, user=core.user, password=core.password)
        assert await rpc.call("anything") == 7
        await rpc.close()

    play(scenario, start=False)


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_answer_is_unavailable_and_the_next_request_works(case: str) -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        rpc = JsonRpc("127.0.0.1", core.port, user=core.user, password=core.password, timeout=3)
        core.raw = MALFORMED[case]
        with pytest.raises(Unavailable) as caught:
            await rpc.call("anything")
        assert core.password not in str(caught.value)
        core.raw = None
        assert await rpc.call("getblockhash", 1) == f"{1:064x}"
        await rpc.close()

    play(scenario, start=False)


WRONG_SHAPES: tuple[Any, ...] = (None, [], {}, "x", 5, [None], [[]], {"value": {}}, True)
METHODS = ("getblockchaininfo", "getnetworkinfo", "getindexinfo", "gettxspendingprevout", "getrawtransaction", "getmempoolinfo")
MORE_METHODS = ("estimatesmartfee", "testmempoolaccept", "listwallets", "listunspent", "importdescriptors", "listdescriptors")


@pytest.mark.parametrize("method", METHODS + MORE_METHODS + ("gettxout", "getblockheader", "gettransaction", "listwalletdir"))
def test_a_result_of_another_shape_than_documented_is_never_more_than_unavailable(method: str) -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        core.results.setdefault("estimatesmartfee", {"feerate": btc("0.0001")})
        for shape in WRONG_SHAPES:
            if method == "getrawtransaction" and shape is None:
                continue
            core.results[method] = shape
            for number, call in enumerate(
                (
                    chain.start,
                    chain.tip,
                    lambda: chain.find_funding(request(9)),
                    lambda: chain.find_funding(request(8)),
                    lambda: chain.find_funding(request(8, OUTPOINT)),
                    lambda: chain.funding_status(TERMS, SPENDER),
                    lambda: chain.funding_transaction(TERMS),
                    lambda: chain.fee_per_byte(6),
                    lambda: chain.broadcast(RAW),
                    lambda: chain.confirmations(TERMS, SPENDER),
                )
            ):
                try:
                    await call()
                except Unavailable as error:
                    assert error.code == "chain_unavailable", (shape, number)

    play(scenario)


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(core: CoreStandIn, chain: BitcoindChain) -> None:
        await chain.tip()
        core.raw = b"HTTP/1.1 500 no\r\n\r\n"
        with pytest.raises(Unavailable):
            await chain.tip()

    with caplog.at_level(logging.INFO):
        play(scenario)
    assert caplog.records == []
