"""A payer for aiohttp:

from paychan.pay.aiohttp import Payer

async with aiohttp.ClientSession(middlewares=[Payer("purse/")]) as session:
    await session.get("https://api.example.com/weather")
"""

from aiohttp import ClientConnectionError, ClientHandlerType, ClientPayloadError, ClientRequest, ClientResponse

from .payer import Asked
from .payer import Payer as Core
from .steps import READ_STATUSES, Answer, Try, drive_async


class Payer(Core):
    """See paychan.pay.payer.Payer for its arguments."""

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Be a client middleware."""
        asked = Asked(request.method, str(request.url), "Authorization" in request.headers)
        own = request.headers.get("Authorization")
        latest: list[ClientResponse | Exception] = []

        async def exchange(step: Try) -> Answer | None:
            for name in ("Authorization", "Payment-Authorization"):
                request.headers.popall(name, None)
            if own is not None:
                request.headers["Authorization"] = own
            request.headers.update(step.headers)
            for earlier in latest:
                if isinstance(earlier, ClientResponse):
                    earlier.release()
            try:
                response = await handler(request)
                body = await response.read() if response.status in READ_STATUSES else b""
            except (ClientConnectionError, ClientPayloadError, TimeoutError) as error:
                latest[:] = [error]
                return None
            latest[:] = [response]
            return Answer(response.status, tuple((name.lower(), value) for name, value in response.headers.items()), body)

        await drive_async(self.purchase(asked), exchange)
        if isinstance(latest[0], Exception):
            raise latest[0]
        return latest[0]
