"""Aim: whatever a server answers, the backend either understands it as documented or says `Unavailable`, naming the server, soon,
and without quoting. Method: each documented answer is replaced by malformed ones, field by field and at the HTTP level."""

import json
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

import pytest

from paychan.chain.esplora import ANSWER_SIZE_MAX, EsploraChain
from paychan.core.network import REGTEST
from tests.chain.esplora_stand_in import EsploraStandIn, TinyChain, display
from tests.chain.test_esplora import (
    SCRIPT,
    VALUE,
    asynchronous,
    by_outpoint,
    by_script,
    outpoint_of,
    refusal_of,
    servers_and_chain,
    terms_of,
)

MISSING = object()
NO_HASHES = [None, 5, "", "ab", "G" * 64, "AB" * 32, "ab" * 33]
NO_COUNTS = [None, True, 1.0, "1", -1, 1 << 40, 10**400, [1]]
NO_SATOSHI = [None, True, False, 1.0, 5e6, "5000000", -1, 21_000_000 * 10**8 + 1, 1 << 64, [], {}]
NO_ANSWERS = [
    "",
    "null",
    "x",
    "[",
    "{}x",
    "NaN",
    "[" * 100_000,
    '{"a":Infinity}',
    "9" * 10_000,
    '"text"',
    "5",
    "[5]",
    "[[]]",
    "[{}]",
]

Question = Callable[[EsploraChain, Any], Awaitable[object]]
QUESTIONS: dict[str, tuple[str, Question]] = {
    "genesis": ("/block-height/0", lambda chain, funding: chain.start()),
    "tip": ("/blocks", lambda chain, funding: chain.tip()),
    "height": ("/blocks/tip/height", lambda chain, funding: chain.find_funding(by_script())),
    "utxo": ("/scripthash/", lambda chain, funding: chain.find_funding(by_script())),
    "transaction": ("/tx/", lambda chain, funding: chain.funding_transaction(terms_of(funding))),
    "status": ("/tx/", lambda chain, funding: chain.funding_status(terms_of(funding))),
    "outpoint": ("/tx/", lambda chain, funding: chain.find_funding(by_outpoint(outpoint_of(funding)))),
    "fees": ("/fee-estimates", lambda chain, funding: chain.fee_per_byte(6)),
}


def changed(row: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return a copy of nested objects with one field replaced, or taken away. path: names joined by dots."""
    name, _, rest = path.partition(".")
    if rest:
        value = changed(row[name], rest, value)
    return {key: old for key, old in row.items() if key != name} | ({} if value is MISSING else {name: value})


async def check_refused(server: EsploraStandIn, question: Awaitable[object]) -> None:
    detail = await refusal_of(question)
    assert server.host in detail and len(detail) < 400 and detail.isprintable()
    assert SCRIPT.hex() not in detail


@asynchronous
@pytest.mark.parametrize("name", QUESTIONS)
async def test_answers_that_are_not_even_of_the_right_shape(name: str) -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        funding = servers[0].model.pay(SCRIPT, VALUE)
        servers[0].model.mine()
        path, question = QUESTIONS[name]
        for text in NO_ANSWERS:
            if (name, text) == ("height", "5"):
                continue
            servers[0].overrides = {path: (200, text)}
            await check_refused(servers[0], question(chain, funding))
        for status in (301, 302, 304, 400, 401, 403, 408, 429, 500, 503):
            servers[0].overrides = {path: (status, "/elsewhere " + SCRIPT.hex())}
            await check_refused(servers[0], question(chain, funding))


RAW_ANSWERS = [
    b"",
    b"\r\n\r\n",
    b"no HTTP at all\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 2OO OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 \xb2\xb2\xb2 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (ANSWER_SIZE_MAX + 1),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"100000\r\n" + b" " * 0x100000 + b"\r\n") * 5,
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xfe\xfd\xfc",
    b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
]


@asynchronous
@pytest.mark.parametrize("at", range(len(RAW_ANSWERS)))
async def test_answers_that_are_malformed_cut_off_encoded_redirected_or_huge(at: int) -> None:
    async with servers_and_chain(1, 1, timeout=10) as (servers, chain):
        await chain.start()
        servers[0].overrides = {"/blocks": RAW_ANSWERS[at]}
        await check_refused(servers[0], chain.tip())
        servers[0].overrides = {}
        assert (await chain.tip()).height == 5


@asynchronous
async def test_whole_answers_that_are_too_large() -> None:
    async with servers_and_chain(1, 1, timeout=10) as (servers, chain):
        rest = json.dumps([servers[0]._block(5), servers[0]._block(4)])
        fitting = rest + " " * (ANSWER_SIZE_MAX - len(rest))
        servers[0].overrides = {"/blocks": (200, fitting)}
        assert (await chain.tip()).height == 5
        servers[0].overrides = {"/blocks": (200, fitting + " ")}
        await check_refused(servers[0], chain.tip())
        chunk = b"%x\r\n%b\r\n1\r\n \r\n0\r\n\r\n" % (len(fitting), fitting.encode())
        servers[0].overrides = {"/blocks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk}
        await check_refused(servers[0], chain.tip())


@asynchronous
async def test_redirects_are_told_and_not_followed() -> None:
    async with servers_and_chain(2, 1) as (servers, chain):
        head = f"HTTP/1.1 301 Moved\r\nLocation: {servers[1].url}/blocks\r\nContent-Length: 0\r\n\r\n"
        servers[0].overrides["/blocks"] = head.encode()
        servers[1].silent = True
        single = EsploraChain((servers[0].url,), 1, REGTEST)
        assert "sends us elsewhere (HTTP status 301)" in await refusal_of(single.tip())
        await single.stop()
        assert servers[1].requests == []


@asynchronous
async def test_chunks_and_trailers_are_understood() -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        body = json.dumps([servers[0]._block(5), servers[0]._block(4)]).encode()
        chunks = b"%x;extension\r\n%b\r\n%x\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (9, body[:9], len(body) - 9, body[9:])
        servers[0].overrides["/blocks"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
        assert (await chain.tip()).height == 5


@asynchronous
@pytest.mark.parametrize(
    "path, values",
    [
        ("txid", NO_HASHES),
        ("vout", [*NO_COUNTS, 1 << 32]),
        ("value", NO_SATOSHI),
        ("status", [None, 5, "confirmed", []]),
        ("status.confirmed", [None, 0, 1, "true"]),
        ("status.block_height", NO_COUNTS),
    ],
)
async def test_fields_of_unspent_outputs(path: str, values: list[object]) -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        servers[0].model.pay(SCRIPT, VALUE)
        servers[0].model.mine()
        (row,) = servers[0]._unspent(sha256(SCRIPT).hexdigest())
        for value in [MISSING, *values]:
            servers[0].overrides["/scripthash"] = (200, json.dumps([changed(row, path, value)]))
            await check_refused(servers[0], chain.find_funding(by_script()))


@asynchronous
@pytest.mark.parametrize(
    "path, values",
    [
        ("spent", [None, 0, 1, "true"]),
        ("txid", NO_HASHES),
        ("status", [None, True, []]),
        ("status.confirmed", [None, 1]),
        ("status.block_height", NO_COUNTS),
    ],
)
async def test_fields_of_a_spend(path: str, values: list[object]) -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        funding = servers[0].model.pay(SCRIPT, VALUE)
        servers[0].model.spend(funding)
        servers[0].model.mine()
        txid = display(funding.GetTxid())
        row = servers[0]._outspend(txid, 0)
        for value in [MISSING, *values]:
            servers[0].overrides[f"/tx/{txid}/outspend"] = (200, json.dumps(changed(row, path, value)))
            await check_refused(servers[0], chain.funding_status(terms_of(funding)))


@asynchronous
@pytest.mark.parametrize(
    "path, values",
    [
        ("id", [*NO_HASHES, "ab" * 32]),
        ("height", [*NO_COUNTS, 3, 5]),
        ("timestamp", [*NO_COUNTS, 1 << 32]),
        ("mediantime", [*NO_COUNTS, 1 << 32]),
        ("previousblockhash", [*NO_HASHES, "ab" * 32]),
    ],
)
async def test_fields_of_blocks(path: str, values: list[object]) -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        rows = [servers[0]._block(height) for height in (5, 4, 3)]
        for value in [MISSING, *values]:
            servers[0].overrides["/blocks"] = (200, json.dumps([rows[0], changed(rows[1], path, value), rows[2]]))
            await check_refused(servers[0], chain.tip())


@asynchronous
@pytest.mark.parametrize("fee", [None, True, "1", -0.1, -1, 1e7, 10**400, [], {}])
async def test_fee_estimates_that_are_none(fee: object) -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        servers[0].fees = {"2": 10.0, "6": fee}
        await check_refused(servers[0], chain.fee_per_byte(2))


@asynchronous
@pytest.mark.parametrize("fees", ['{"2":1e999}', '{"2":NaN}', '{"0":1}', '{"-2":1}', '{"":1}', '{"two":1}', '{"\\u0662":1}'])
async def test_fee_estimates_that_python_would_take(fees: str) -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        servers[0].overrides["/fee-estimates"] = (200, fees)
        await check_refused(servers[0], chain.fee_per_byte(2))


@asynchronous
async def test_a_malformed_server_of_three_is_left_out() -> None:
    async with servers_and_chain(3, 2) as (servers, chain):
        servers[0].model.pay(SCRIPT, VALUE)
        servers[0].overrides["/"] = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{"
        assert (await chain.tip()).height == 5
        assert len(await chain.find_funding(by_script())) == 1


@asynchronous
async def test_a_transaction_in_a_block_that_has_just_come_has_one_confirmation() -> None:
    async with servers_and_chain(1, 1) as (servers, chain):
        servers[0].model.pay(SCRIPT, VALUE)
        servers[0].model.mine()
        servers[0].overrides["/blocks/tip/height"] = (200, "5")
        (found,) = await chain.find_funding(by_script())
        assert found.confirmations == 1


def test_the_stand_in_starts_with_the_networks_first_block() -> None:
    assert TinyChain().blocks[0][0].startswith("0f9188f1")
