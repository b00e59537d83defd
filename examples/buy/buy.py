"""Buy something, and pay for it: docs/PAYING.md. Against a shop behind a server in debug mode, which moves no money:

    .venv/bin/python examples/buy/buy.py [URL [PURSE]]

The purse is made where there is none. Keep it: its keys are the money.
"""

import sys

import httpx

from paychan.pay.httpx import Payer

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080/joke"
client = httpx.Client(auth=Payer(sys.argv[2] if len(sys.argv) > 2 else "purse/"))
print(client.get(url).text)
