"""Buy what examples/sell_x402.py sells, with x402's own client. Against a seller in debug mode:

.venv/bin/pip install 'x402[fastapi,httpx]'
.venv/bin/python examples/buy_x402.py [URL [PURSE]]
"""

import asyncio
import sys

import httpx
from x402 import x402Client
from x402.http.clients import x402HttpxClient

from paychan.client import ClientError
from paychan.pay.purse import Purse
from paychan.pay.x402 import ChannelScheme, pay_with

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080/news"
purse = sys.argv[2] if len(sys.argv) > 2 else "purse/"


async def main() -> None:
    async with x402HttpxClient(pay_with(x402Client(), ChannelScheme(Purse(purse)))) as client:
        for _ in range(3):
            answer = await client.get(url)
            print(answer.status_code, answer.text)


try:
    asyncio.run(main())
except (httpx.TransportError, ClientError) as error:
    sys.exit(f"buy_x402.py: {url}: {error}")
