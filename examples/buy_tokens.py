"""Buy tokens of examples/sell_tokens.py, and pay for them while they come. Against a seller in debug mode:

.venv/bin/pip install httpx
.venv/bin/python examples/buy_tokens.py [URL [PURSE]]
"""

import sys

import httpx

from paychan.client import ClientError
from paychan.pay.httpx import Payer

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
payer = Payer(sys.argv[2] if len(sys.argv) > 2 else "purse/")

try:
    with httpx.Client(auth=payer) as client:
        for event in payer.events(client, f"{url}/stream?tokens=50"):
            print(event.data, end=" ", flush=True)
        print()
        print(client.get(f"{url}/complete?tokens=7").json())
except (httpx.HTTPError, ClientError) as error:
    sys.exit(f"buy_tokens.py: {url}: {error}")
