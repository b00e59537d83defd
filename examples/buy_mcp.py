"""Call the tools of examples/sell_mcp.py, and pay for them, with the MCP SDK. Against a seller in debug mode:

.venv/bin/pip install mcp
.venv/bin/python examples/buy_mcp.py [URL [PURSE]]
"""

import asyncio
import sys

import httpx2
from mcp import Client, MCPError

from paychan.client import ClientError
from paychan.pay.mcp import Payer

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080/mcp"
purse = sys.argv[2] if len(sys.argv) > 2 else "purse/"


async def main() -> None:
    payer = Payer(purse, server=url)
    async with Client(url) as client:
        for name in ("count", "shout"):
            result = await payer.call_tool(client, name, {"text": "hello"})
            receipt = (result.meta or {}).get("org.paymentauth/receipt", {})
            print(f"{name}: {result.content[0].text} (spent on the channel: {receipt.get('spent', 0)} satoshi)")


trouble = None
try:
    asyncio.run(main())
except* (httpx2.HTTPError, MCPError, ClientError) as errors:  # the SDK's tasks raise groups
    trouble = f"buy_mcp.py: {url}: {errors.exceptions[0]}"
sys.exit(trouble)
