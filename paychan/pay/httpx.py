"""A payer for httpx:

from paychan.pay.httpx import Payer

client = httpx.Client(auth=Payer("purse/"))           # or httpx.AsyncClient, on asyncio
client.get("https://api.example.com/weather")
for event in client.auth.events(client, "https://api.example.com/stream"): ...
"""

import httpx

from .auth import AuthFlow


class Payer(AuthFlow, httpx.Auth):
    """See paychan.pay.payer.Payer for its arguments."""
