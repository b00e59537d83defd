"""What is done with a request once its route is known."""

from typing import Any

from .bodies import Body
from .fields import to_upstream
from .models import GatewayConfig, Route
from .relay import relay
from .requests import Request
from .upstream import Upstreams
from .websocket import join
from .wire import Wire


class Proxy:
    """One in each worker."""

    def __init__(self, config: GatewayConfig, upstreams: Upstreams) -> None:
        self._config = config
        self._upstreams = upstreams

    async def start(self) -> None:
        """Begin to look after what payments need."""

    async def stop(self) -> None:
        """Let go of it."""

    async def trouble(self) -> str:
        """Return why nothing can be sold just now; empty if it can."""
        return ""

    async def answer_own(self, request: Request, proto: Any) -> bool:
        """Answer a request that is the gateway's own, such as for its description; return whether it is."""
        return False

    async def pass_on(self, request: Request, route: Route, proto: Any) -> None:
        """Take what the route costs, and have the upstream answer. Raises Refused."""
        if request.is_websocket:
            await join(request, route, proto, self._upstreams)
            return
        headers = to_upstream(request.headers, route.request_fields, request.sender, [])
        body = None
        if request.size or request.values("content-length"):
            headers.append(("content-length", str(request.size)))
        if request.size:
            body = Body(proto, request.size, route.limits)
        wire = Wire(request.client, request.server)
        async with self._upstreams.ask(request, route, headers, body) as response:
            await relay(response, proto, wire, route, [], None)
