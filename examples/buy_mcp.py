"""Call the tools of examples/sell_mcp.py, and pay for them. Against a seller in debug mode:

    .venv/bin/pip install httpx
    .venv/bin/python examples/buy_mcp.py [URL [PURSE]]

With the MCP SDK, whose session does what `post` does here: `await payer.call_tool(session, "shout", {"text": "hello"})`.
"""

import asyncio
import sys
from typing import Any

import httpx

from paychan.client import ClientError
from paychan.pay.mcp import CallError, Payer

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080/mcp"
purse = sys.argv[2] if len(sys.argv) > 2 else "purse/"


async def main() -> None:
    async with httpx.AsyncClient() as http:

        async def post(name: str, arguments: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
            params = {"name": name, "arguments": arguments, "_meta": meta}
            message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
            answer = (await http.post(url, json=message)).json()
            if "error" in answer:
                raise CallError(answer["error"])
            result: dict[str, Any] = answer["result"]
            return result

        payer = Payer(purse, server=url, lost=(httpx.TransportError,))
        for name in ("count", "shout"):
            result = await payer.call(lambda meta, name=name: post(name, {"text": "hello"}, meta), name)
            receipt = result.get("_meta", {}).get("org.paymentauth/receipt", {})
            print(f"{name}: {result['content'][0]['text']} (spent on the channel: {receipt.get('spent', 0)} satoshi)")


try:
    asyncio.run(main())
except (httpx.TransportError, CallError, ClientError) as error:
    sys.exit(f"buy_mcp.py: {url}: {error}")
