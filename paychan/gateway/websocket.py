"""A WebSocket through the gateway: two connections, and each message of one is a message of the other."""

import asyncio
from contextlib import suppress
from typing import Any

import aiohttp

from ..core.errors import PaychanError
from .fields import to_upstream
from .metering import Meter, as_message
from .models import Route
from .refusals import Headers, Refused
from .relay import Commit
from .requests import Request
from .upstream import Upstreams, url_of
from .wire import Wire

_CLOSE, _BYTES, _TEXT = 0, 1, 2
"""granian's kinds of messages."""

_ACCEPTED = 200
"""What a handshake counts as that the upstream takes: its 101 is no answer."""

_HANDSHAKE = "sec-websocket-"


def check_handshake(request: Request, route: Route) -> None:
    """Raises Refused if a handshake is not for this route, or asks for what granian cannot grant."""
    if not route.websocket:
        raise Refused("no_such_route")
    if request.values("sec-websocket-protocol"):
        raise Refused("subprotocol_unsupported")


async def join(
    request: Request, route: Route, proto: Any, upstreams: Upstreams, told: Headers, commit: Commit, meter: Meter | None
) -> None:
    """Connect to the upstream, accept the client's handshake, and pass messages on until one of them ends. Raises Refused before
    that.

    The upstream is asked first, so that whoever it refuses is not charged. told: of the payment. commit: as in `relay`. meter: of
    messages that are paid while they come.
    """
    headers = to_upstream(request.headers, route.request_fields, request.sender, told)
    headers = [(name, value) for name, value in headers if not name.startswith(_HANDSHAKE)]
    if route.upstream.preserve_host:
        headers.append(("host", request.host_field))
    behind = await _connect(request, route, upstreams, headers)
    wire = Wire(request.client, request.server)
    try:
        await commit(_ACCEPTED)
        front = await proto.accept()
        pumps = [
            asyncio.ensure_future(_from_client(front, behind, route.limits.websocket_message_bytes)),
            asyncio.ensure_future(_from_upstream(behind, front, meter, wire, route.limits.idle_seconds)),
        ]
        try:
            await asyncio.wait(pumps, timeout=route.limits.stream_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        proto.close()
    finally:
        wire.close()
        await behind.close()


async def _connect(request: Request, route: Route, upstreams: Upstreams, headers: Headers) -> aiohttp.ClientWebSocketResponse:
    url = url_of(route.upstream, request.path, request.query)
    try:
        async with asyncio.timeout(route.limits.answer_seconds):
            return await upstreams.session(route.upstream.name).ws_connect(
                url,
                headers=headers,
                autoping=True,
                autoclose=True,
                max_msg_size=route.limits.websocket_message_bytes,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            )
    except TimeoutError as error:
        raise Refused("upstream_timeout") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Refused("upstream_failed", type(error).__name__) from error


async def _from_client(front: Any, behind: aiohttp.ClientWebSocketResponse, size_max: int) -> None:
    while True:
        try:
            message = await front.receive()
        except RuntimeError:  # RSGIProtocolClosed: gone without a word
            return
        if message.kind == _CLOSE or len(message.data) > size_max:
            return
        if message.kind == _BYTES:
            await behind.send_bytes(message.data)
        elif message.kind == _TEXT:
            await behind.send_str(message.data)


async def _from_upstream(
    behind: aiohttp.ClientWebSocketResponse, front: Any, meter: Meter | None, wire: Wire, idle_seconds: float
) -> None:
    """Pass on until the upstream ends, the client is gone or takes nothing, or the messages are not paid any further."""
    with suppress(RuntimeError, PaychanError, Refused):
        async for message in behind:
            if meter is not None:
                async for asked in meter.take(len(message.data)):
                    await front.send_str(as_message(asked))
            if message.type is aiohttp.WSMsgType.BINARY:
                await front.send_bytes(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                await front.send_str(message.data)
            await wire.pace(len(message.data or b""), idle_seconds)
