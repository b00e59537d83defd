"""Aim: a tool of an MCP server runs once for each payment; what fails, or is lost on the way, is neither charged for nothing nor
run twice. Method: the till of paychan.sell.mcp before real tools, at a real server's door; the payer of paychan.pay.mcp, on a
line that loses what it is told to."""

import asyncio
import copy

import pytest

from paychan.mpp import mcp
from paychan.mpp.text import decode_bytes, encode_bytes
from paychan.pay.mcp import CallError, Payer
from paychan.sell.mcp import PaymentError, Till
from tests.selling import Seller, with_door

OPEN_PRICE = 83240
PRICE = 3


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with with_door(tmp_path_factory.mktemp("system"), workers=2) as system:
        yield system


class Server:
    """A tool `add`, behind a till. lose: so many answers get lost on the way."""

    def __init__(self, system, realm: str = "sums") -> None:
        self._till = Till(str(system.state_dir.absolute() / "run" / "sell.sock"), realm=realm)
        self.runs, self.lose, self.seen = 0, 0, []
        self.fails_with: Exception | None = None

    async def _add(self, arguments) -> dict:
        self.runs += 1
        if self.fails_with is not None:
            raise self.fails_with
        if "x" not in arguments:
            return {"content": [], "isError": True}
        return {"content": [{"type": "text", "text": str(arguments["x"] + 1)}], "_meta": {"own": 1}}

    async def call(self, arguments, meta) -> dict:
        """Answer as JSON-RPC does: the result, or CallError."""
        self.seen.append(copy.deepcopy(meta))
        try:
            result = await self._till.call("add", arguments, meta, PRICE, lambda: self._add(arguments))
        except PaymentError as error:
            raise CallError(error.as_object()) from error
        if self.lose and mcp.CREDENTIAL in meta:
            self.lose -= 1
            raise ConnectionResetError("the answer is lost")
        return result


def spent_of(system, result: dict) -> int:
    channel = result["_meta"][mcp.RECEIPT]["channelId"].replace(":", "/")
    token = (system.state_dir / "run" / "sell.cookie").read_text().strip()
    return Seller(system, token).look(channel)["spent"]


def payer_in(tmp_path) -> Payer:
    return Payer(tmp_path / "purse", server="https://sums.localhost", deadline=10.0)


def test_a_call_is_paid_and_has_a_receipt(system, tmp_path):
    async def life() -> dict:
        server, payer = Server(system), payer_in(tmp_path)
        for number in range(3):
            result = await payer.call(lambda meta, number=number: server.call({"x": number}, meta), "add")
            assert result["content"][0]["text"] == str(number + 1) and result["_meta"]["own"] == 1
        assert server.runs == 3
        assert [mcp.CREDENTIAL in meta for meta in server.seen] == [False, True, True, True]  # one round trip from the second on
        return result

    assert spent_of(system, asyncio.run(life())) == OPEN_PRICE + 3 * PRICE


def test_who_does_not_pay_is_asked_to(system):
    with pytest.raises(CallError) as caught:
        asyncio.run(Server(system).call({"x": 1}, {}))
    error = caught.value.error
    assert error["code"] == mcp.PAYMENT_REQUIRED and error["data"]["httpStatus"] == 402
    (challenge,) = mcp.read_challenges(error)
    assert (challenge.realm, challenge.session().amount) == ("sums", PRICE)
    assert isinstance(error["data"]["challenges"][0]["request"], dict)


def test_an_answer_that_is_lost_is_given_again_and_the_tool_is_not_run_again(system, tmp_path):
    async def life() -> tuple[Server, dict]:
        server, payer = Server(system), payer_in(tmp_path)
        server.lose = 2
        return server, await payer.call(lambda meta: server.call({"x": 1}, meta), "add")

    server, result = asyncio.run(life())
    assert server.runs == 1 and server.lose == 0
    assert result["content"][0]["text"] == "2" and spent_of(system, result) == OPEN_PRICE + PRICE


@pytest.mark.parametrize("how", ["raises", "isError"])
def test_a_tool_that_fails_costs_nothing(system, tmp_path, how):
    async def life() -> dict:
        server, payer = Server(system), payer_in(tmp_path)
        if how == "raises":
            server.fails_with = ZeroDivisionError("this tool fails, as it should")
            with pytest.raises(ZeroDivisionError):
                await payer.call(lambda meta: server.call({"x": 1}, meta), "add")
            server.fails_with = None
        else:
            failed = await payer.call(lambda meta: server.call({}, meta), "add")
            assert failed["isError"] and mcp.RECEIPT not in failed.get("_meta", {})
        result = await payer.call(lambda meta: server.call({"x": 1}, meta), "add")
        assert server.runs == 2
        return result

    result = asyncio.run(life())
    assert spent_of(system, result) == OPEN_PRICE + PRICE
    assert result["_meta"][mcp.RECEIPT]["acceptedCumulative"] == str(OPEN_PRICE + PRICE)  # what failed has paid for this


def test_a_payment_buys_one_call(system, tmp_path):
    """Shown again for other arguments it buys nothing, and forged it buys nothing."""

    async def life() -> None:
        server, payer = Server(system), payer_in(tmp_path)
        await payer.call(lambda meta: server.call({"x": 1}, meta), "add")
        meta = server.seen[-1]
        with pytest.raises(CallError) as other:
            await server.call({"x": 2}, meta)
        forged = copy.deepcopy(meta)
        payload = forged[mcp.CREDENTIAL]["payload"]
        raw = bytearray(decode_bytes(payload["payment"]))
        raw[0] -= 1  # a satoshi less for the payer, under the same signature
        payload["payment"] = encode_bytes(bytes(raw))
        with pytest.raises(CallError) as false:
            await server.call({"x": 2}, forged)
        assert server.runs == 1
        for caught, code in ((other, "insufficient_credit"), (false, "bad_signature")):
            error = caught.value.error
            assert (error["code"], error["data"]["problem"]["code"]) == (mcp.VERIFICATION_FAILED, code)
            assert mcp.read_challenges(error)

    asyncio.run(life())


@pytest.mark.parametrize("credential", [7, {}, {"challenge": {}, "payload": {}}, {"challenge": {"request": 1}, "payload": 5}])
def test_what_is_no_credential_is_an_error_of_the_params(system, credential):
    server = Server(system)
    with pytest.raises(CallError) as caught:
        asyncio.run(server.call({"x": 1}, {mcp.CREDENTIAL: credential}))
    assert caught.value.error["code"] == mcp.INVALID_PARAMS and server.runs == 0
    assert caught.value.error["data"]["httpStatus"] == 400


def test_without_a_door_nothing_is_sold_and_no_payment_is_asked_for(tmp_path):
    till = Till(str(tmp_path / "none.sock"))

    async def tool() -> dict:
        raise AssertionError("it runs unpaid")

    with pytest.raises(PaymentError) as caught:
        asyncio.run(till.call("add", {}, None, PRICE, tool))
    assert caught.value.code == mcp.INTERNAL_ERROR
    assert (caught.value.data["httpStatus"], caught.value.data["challenges"]) == (503, [])


def test_what_is_free_is_not_paid(system, tmp_path):
    async def tool() -> dict:
        return {"content": []}

    assert asyncio.run(Till(str(tmp_path / "none.sock")).call("add", {}, {mcp.CREDENTIAL: 7}, None, tool)) == {"content": []}


def test_a_payer_that_lost_what_it_knew_goes_on_from_its_own_signature(system, tmp_path):
    """An old copy of the channel is used: the server refuses its payment as stale, and shows the newest."""

    async def life() -> dict:
        server, payer = Server(system), payer_in(tmp_path)
        await payer.call(lambda meta: server.call({"x": 1}, meta), "add")
        (file,) = (tmp_path / "purse").glob("*.json")
        old = file.read_bytes()
        for _ in range(2):
            await payer.call(lambda meta: server.call({"x": 2}, meta), "add")
        payer.purse.close()
        file.write_bytes(old)
        return await payer_in(tmp_path).call(lambda meta: server.call({"x": 3}, meta), "add")

    result = asyncio.run(life())
    assert result["content"][0]["text"] == "4" and spent_of(system, result) == OPEN_PRICE + 4 * PRICE
