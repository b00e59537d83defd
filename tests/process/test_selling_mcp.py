"""Aim: the MCP SDK's own server sells its tools, and its own client buys them: each call that ran to its end is paid once,
nothing else is. Method: an MCPServer with the till's extension and a Client, connected to each other in one process, at a real
server's door; examples/sell_mcp.py has the same over HTTP (test_selling_examples.py)."""

import asyncio
from contextlib import asynccontextmanager
from typing import Annotated

import pytest
from mcp import Client, MCPError
from mcp.server import MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp_types import ElicitResult
from pydantic import BaseModel

from paychan.mpp import mcp
from paychan.pay.mcp import Payer
from paychan.sell.mcpserver import Till
from tests.selling import Seller, with_door

OPEN_PRICE = 83240
PRICE = 3


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with with_door(tmp_path_factory.mktemp("system"), workers=2) as system:
        yield system


class Name(BaseModel):
    name: str


def ask_for_a_name() -> Elicit[Name]:
    return Elicit("Who is there?", Name)


class Shop:
    """A server with tools, and how often each was run."""

    def __init__(self, system, realm: str) -> None:
        door = str((system.state_dir / "run" / "sell.sock").absolute())
        prices = {"shout": PRICE, "fail": PRICE, "greet": PRICE, "spell": lambda arguments: len(arguments["text"]) or None}
        self.server = MCPServer("words", extensions=[Till(door, prices, realm=realm)])
        self.runs: list[str] = []
        for tool in (self.shout, self.fail, self.greet, self.spell, self.count):
            self.server.tool()(tool)

    def shout(self, text: str) -> str:
        self.runs.append("shout")
        return text.upper()

    def fail(self) -> str:
        self.runs.append("fail")
        raise ZeroDivisionError("this tool fails, as it should")

    def greet(self, who: Annotated[Name, Resolve(ask_for_a_name)]) -> str:
        self.runs.append("greet")
        return f"good day, {who.name}"

    def spell(self, text: str) -> str:
        self.runs.append("spell")
        return " ".join(text)

    def count(self, text: str) -> int:
        self.runs.append("count")
        return len(text)


async def told_a_name(context, params) -> ElicitResult:
    return ElicitResult(action="accept", content={"name": "Anna"})


@asynccontextmanager
async def visit(shop: Shop, tmp_path):
    """Yield a client of the SDK, and a payer for it."""
    payer = Payer(tmp_path / "purse", server="https://words.localhost", deadline=10.0)
    async with Client(shop.server, elicitation_callback=told_a_name) as client:
        yield client, payer


def spent_of(system, result) -> int:
    channel = result.meta[mcp.RECEIPT]["channelId"].replace(":", "/")
    token = (system.state_dir / "run" / "sell.cookie").read_text().strip()
    return Seller(system, token).look(channel)["spent"]


def run(life):
    return asyncio.run(asyncio.wait_for(life, 60))


def test_a_tool_is_paid_for_each_call(system, tmp_path):
    shop = Shop(system, "each call")

    async def life():
        async with visit(shop, tmp_path) as (client, payer):
            for text in ("hello", "world"):
                result = await payer.call_tool(client, "shout", {"text": text}, read_timeout_seconds=30)
                assert (result.content[0].text, result.structured_content) == (text.upper(), {"result": text.upper()})
            return result

    assert spent_of(system, run(life())) == OPEN_PRICE + 2 * PRICE
    assert shop.runs == ["shout"] * 2


def test_who_does_not_pay_is_asked_to_and_nothing_runs(system, tmp_path):
    shop = Shop(system, "unpaid")

    async def life():
        async with visit(shop, tmp_path) as (client, _):
            with pytest.raises(MCPError) as caught:
                await client.call_tool("shout", {"text": "hello"})
            with pytest.raises(MCPError) as malformed:
                await client.call_tool("shout", {"text": "hello"}, meta={mcp.CREDENTIAL: {"challenge": 1}})
            return caught.value.error, malformed.value.error

    error, malformed = run(life())
    assert (error.code, error.data["httpStatus"]) == (mcp.PAYMENT_REQUIRED, 402)
    (challenge,) = mcp.read_challenges(error.model_dump())
    assert (challenge.realm, challenge.session().amount) == ("unpaid", PRICE)
    assert (malformed.code, malformed.data["problem"]["code"]) == (mcp.INVALID_PARAMS, "malformed_credential")
    assert shop.runs == []


def test_a_tool_that_fails_costs_nothing(system, tmp_path):
    shop = Shop(system, "failing")

    async def life():
        async with visit(shop, tmp_path) as (client, payer):
            failed = await payer.call_tool(client, "fail")
            assert failed.is_error and mcp.RECEIPT not in (failed.meta or {})
            return await payer.call_tool(client, "shout", {"text": "hello"})

    assert spent_of(system, run(life())) == OPEN_PRICE + PRICE
    assert shop.runs == ["fail", "shout"]


def test_a_tool_that_asks_for_more_is_paid_once(system, tmp_path):
    shop = Shop(system, "asking")

    async def life():
        async with visit(shop, tmp_path) as (client, payer):
            return await payer.call_tool(client, "greet")

    result = run(life())
    assert result.content[0].text == "good day, Anna" and shop.runs == ["greet"]
    assert spent_of(system, result) == OPEN_PRICE + PRICE


def test_a_price_depends_on_the_arguments_and_what_is_free_is_free(system, tmp_path):
    shop = Shop(system, "arguments")

    async def life():
        async with visit(shop, tmp_path) as (client, payer):
            told = client.server_capabilities.extensions[Till.identifier]
            assert told == {"satoshi": {"shout": PRICE, "fail": PRICE, "greet": PRICE}}
            for name, text in (("count", "hello"), ("spell", "")):
                assert mcp.RECEIPT not in ((await client.call_tool(name, {"text": text})).meta or {})
            return await payer.call_tool(client, "spell", {"text": "hello"})

    result = run(life())
    assert result.content[0].text == "h e l l o"
    assert spent_of(system, result) == OPEN_PRICE + 5


def test_the_same_payment_buys_one_call(system, tmp_path):
    """Presented again with the same call it is answered again, unrun; with another call it buys nothing."""
    shop = Shop(system, "replayed")
    shown = []

    async def life():
        async with visit(shop, tmp_path) as (client, payer):

            class Seen:
                async def call_tool(self, name, arguments, **options):
                    shown[:] = [options.get("meta")]
                    return await client.call_tool(name, arguments, **options)

            first = await payer.call_tool(Seen(), "shout", {"text": "hello"})
            again = await client.call_tool("shout", {"text": "hello"}, meta=shown[0])
            assert again == first
            with pytest.raises(MCPError) as caught:
                await client.call_tool("shout", {"text": "another"}, meta=shown[0])
            return first, caught.value.error

    first, error = run(life())
    assert error.code in (mcp.VERIFICATION_FAILED, mcp.INTERNAL_ERROR) and error.data["problem"]["status"] in (402, 409)
    assert spent_of(system, first) == OPEN_PRICE + PRICE
    assert shop.runs == ["shout"]
