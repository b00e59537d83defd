"""Buy what examples/sell_*.py sell. Three lines pay: the import, the payer, and the request. Against a seller in debug mode:

    .venv/bin/pip install httpx
    .venv/bin/python examples/buy.py [URL [PURSE]]

The first request opens a channel; every other is one round trip. `purse/` has the channels, their keys, and what was spent: keep
it.
"""

import sys

import httpx

from paychan.client import ClientError
from paychan.pay.httpx import Payer

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080/joke"
purse = sys.argv[2] if len(sys.argv) > 2 else "purse/"

try:
    print(httpx.get(url, auth=Payer(purse)).json())
except (httpx.TransportError, ClientError) as error:  # nobody there, or nothing was paid: the error says why
    sys.exit(f"buy.py: {url}: {error}")
