"""What is done with a request once its route is known: the price is taken, the upstream answers, and what failed is given back."""

from typing import Any

from ..sell.facts import BODY_BYTES_MAX, Answer, Sale, body_hash
from .bodies import Body, Held
from .fields import PAID_PREFIX, to_upstream
from .metering import Meter
from .models import Route, Unit
from .refusals import Headers
from .relay import Commit, relay
from .requests import Request
from .selling import Instead, Selling, channel_text
from .upstream import Upstreams
from .websocket import check_handshake, join
from .wire import Wire


async def _nothing(_: int) -> Headers:
    return []


class Proxy:
    """One in each worker."""

    def __init__(self, upstreams: Upstreams, selling: Selling) -> None:
        self._upstreams = upstreams
        self._selling = selling

    async def pass_on(self, request: Request, route: Route, proto: Any) -> None:
        """Take what the route costs, and have the upstream answer. Raises Refused."""
        if request.is_websocket:
            check_handshake(request, route)
        if route.price is None:
            await self._forward(request, route, proto, _body_of(request, route, proto))
        else:
            await self._sell(request, route, proto)

    async def _sell(self, request: Request, route: Route, proto: Any) -> None:
        body = _body_of(request, route, proto)
        digest: bytes | None = b""
        if body is not None and request.credentials:  # who has not paid need not send its body
            digest = None
            if request.size <= BODY_BYTES_MAX:
                body = Held(await body.read())
                digest = body_hash(body.content)
        decision = await self._selling.decide(request, route, digest)
        if isinstance(decision, Answer):
            send(proto, request, decision)
            return
        await self._serve(request, route, proto, body, decision)

    async def _serve(self, request: Request, route: Route, proto: Any, body: Body | None, sale: Sale) -> None:
        """Serve what is paid for. What fails before the answer is begun is given back; what breaks off afterwards is not."""
        is_begun = is_charged = False
        meter = self._selling.meter(sale, route)

        async def commit(status: int) -> Headers:
            nonlocal is_begun, is_charged
            own = await self._selling.finish(sale, route, status)
            is_begun, is_charged = True, status in route.charged
            if meter is not None and is_charged:
                meter.start()
            return own

        sent: Answer | None = None
        try:
            sent = await self._forward(request, route, proto, body, sale, commit, meter)
        except Instead as instead:
            send(proto, request, instead.answer)
            return
        except BaseException:
            if not is_begun:
                await self._selling.failed(sale)
            raise
        finally:
            if meter is not None:
                await meter.stop()
            if is_charged:
                self._selling.close(sale, sent)

    async def _forward(
        self,
        request: Request,
        route: Route,
        proto: Any,
        body: Body | None,
        sale: Sale | None = None,
        commit: Commit = _nothing,
        meter: Meter | None = None,
    ) -> Answer | None:
        told = [] if sale is None else _told(sale)
        headers = to_upstream(request.headers, route.request_fields, request.sender, told)
        if meter is not None and meter.price.unit is Unit.EVENT:  # events are counted, so they must be seen
            headers = [pair for pair in headers if pair[0] != "accept-encoding"]
        if request.size or request.values("content-length"):
            headers.append(("content-length", str(request.size)))
        if request.is_websocket:
            await join(request, route, proto, self._upstreams, told, commit, meter)
            return None
        wire = Wire(request.client, request.server)
        async with self._upstreams.ask(request, route, headers, body) as response:
            return await relay(response, proto, wire, route, commit, meter)


def _body_of(request: Request, route: Route, proto: Any) -> Body | None:
    return Body(proto, request.size, route.limits) if request.size else None


def _told(sale: Sale) -> Headers:
    """Return what the upstream is told: which channel pays, and how many satoshi."""
    return [(f"{PAID_PREFIX}channel", channel_text(sale)), (f"{PAID_PREFIX}charged", str(sale.price.cost))]


def send(proto: Any, request: Request, answer: Answer) -> None:
    """Send an answer of the till's, or of our own; to a WebSocket's handshake its status alone, which is all that granian takes."""
    if request.is_websocket:
        proto.close(answer.status)
    elif request.method == "HEAD" or answer.status in (204, 304):
        proto.response_empty(answer.status, list(answer.headers))
    else:
        proto.response_bytes(answer.status, list(answer.headers), answer.body)
