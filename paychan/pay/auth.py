"""What the adapters for httpx and httpx2 share: an auth flow, for both their clients, and a reader of paid streams."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any

from .payer import Asked, Payer
from .sse import Event, EventReader
from .steps import READ_STATUSES, Answer, Over, Try, drive, drive_async, next_try, next_try_async
from .streams import PaidStream


class AuthFlow(Payer):
    """Pays for requests of a client that takes `auth=`. It knows the two libraries by the names that both have."""

    requires_request_body = False
    requires_response_body = False

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """See httpx.Auth."""
        request.read()  # it may have to be sent again
        asked, own = _asked(request), request.headers.get("authorization")
        flow = self.purchase(asked)
        try:
            step = next_try(flow)
            while True:
                _dress(request, step, own)
                response = yield request
                if response.status_code in READ_STATUSES:
                    response.read()
                step = next_try(flow, _answer(asked, response))
        except StopIteration:
            return
        finally:
            flow.close()

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """See httpx.Auth. On asyncio's event loop."""
        await request.aread()
        asked, own = _asked(request), request.headers.get("authorization")
        flow = self.purchase(asked)
        try:
            step = await next_try_async(flow)
            while True:
                _dress(request, step, own)
                response = yield request
                if response.status_code in READ_STATUSES:
                    await response.aread()
                step = await next_try_async(flow, _answer(asked, response))
        except Over:
            return
        finally:
            flow.close()

    def events(self, client: Any, url: str, method: str = "GET", **options: Any) -> Iterator[Event]:
        """Yield the events of a paid stream, paying on whenever it asks; what it says about money is kept back.

        options: what `client.stream` takes besides. Raises what `purchase` and `top_up` do.
        """
        with client.stream(method, url, auth=self, **options) as response:
            response.raise_for_status()
            asked, reader = Asked(response.request.method, str(response.request.url)), EventReader()
            stream = PaidStream(self, asked)

            def send(step: Try) -> Answer:
                return _answer(asked, client.request("HEAD", url, headers=step.headers, auth=None))

            for piece in response.iter_bytes():
                for event in reader.feed(piece):
                    if drive(stream.take(event), send):
                        yield event

    async def aevents(self, client: Any, url: str, method: str = "GET", **options: Any) -> AsyncIterator[Event]:
        """The same for an asynchronous client."""
        async with client.stream(method, url, auth=self, **options) as response:
            response.raise_for_status()
            asked, reader = Asked(response.request.method, str(response.request.url)), EventReader()
            stream = PaidStream(self, asked)

            async def send(step: Try) -> Answer:
                return _answer(asked, await client.request("HEAD", url, headers=step.headers, auth=None))

            async for piece in response.aiter_bytes():
                for event in reader.feed(piece):
                    if await drive_async(stream.take(event), send):
                        yield event


def _asked(request: Any) -> Asked:
    return Asked(request.method, str(request.url), "authorization" in request.headers)


def _dress(request: Any, step: Try, own: str | None) -> None:
    """Put a step's headers onto the request, and nothing of the step before."""
    for name in ("Authorization", "Payment-Authorization"):
        request.headers.pop(name, None)
    if own is not None:
        request.headers["Authorization"] = own
    for name, value in step.headers.items():
        request.headers[name] = value


def _answer(asked: Asked, response: Any) -> Answer:
    """Return an answer as the purchase knows it. What came from elsewhere, after a redirection, is none of its business."""
    if _asked(response.request).origin != asked.origin:
        return Answer(response.status_code)
    headers = tuple((name.lower(), value) for name, value in response.headers.multi_items())
    return Answer(response.status_code, headers, response.content if response.status_code in READ_STATUSES else b"")
