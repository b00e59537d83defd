"""A payer for requests:

from paychan.pay.requests import Payer

session = requests.Session()
session.mount("https://api.example.com", Payer("purse/"))
session.get("https://api.example.com/weather")
"""

from typing import Any

import requests
from requests.adapters import HTTPAdapter

from .payer import Asked
from .payer import Payer as Core
from .steps import READ_STATUSES, Answer, Try, drive


class Payer(HTTPAdapter):
    """Pays for the requests of what it is mounted for. arguments: those of paychan.pay.payer.Payer."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__()
        self.payer = Core(*arguments, **named)

    def send(self, request: requests.PreparedRequest, stream: bool = False, **options: Any) -> requests.Response:  # type: ignore[override]
        """See requests.adapters.BaseAdapter."""
        asked = Asked(request.method or "GET", request.url or "", "Authorization" in request.headers)
        latest: list[requests.Response | requests.RequestException] = []

        def exchange(step: Try) -> Answer | None:
            dressed = request.copy()
            dressed.headers.update(step.headers)
            try:
                response = super(Payer, self).send(dressed, stream=stream, **options)
            except (requests.ConnectionError, requests.Timeout) as error:
                latest[:] = [error]
                return None
            if response.status_code in READ_STATUSES:
                _ = response.content  # frees the connection
            latest[:] = [response]
            headers = tuple((name.lower(), value) for name, value in response.raw.headers.items())
            return Answer(response.status_code, headers, response.content if response.status_code in READ_STATUSES else b"")

        drive(self.payer.purchase(asked), exchange)
        if isinstance(latest[0], Exception):
            raise latest[0]
        return latest[0]
