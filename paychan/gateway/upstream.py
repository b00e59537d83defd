"""The servers behind the gateway: one pool of connections for each, and what can go wrong on the way there."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from .bodies import Body
from .models import Limits, Route, Upstream
from .refusals import Headers, Refused
from .requests import Request
from .targets import encode_path

log = logging.getLogger("paychan.gateway")

LINE_BYTES_MAX = 16 * 1024
"""Of a status line or a header field of an upstream."""

BUFFER_BYTES = 64 * 1024
"""An answer is read ahead of its client by about twice this."""

KEEP_ALIVE_SECONDS = 30.0
_NOT_OURS_TO_ADD = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class Upstreams:
    """The pools. Made inside an event loop."""

    def __init__(self, upstreams: Iterable[Upstream]) -> None:
        self._sessions = {upstream.name: _session(upstream) for upstream in upstreams}
        self._troubles: dict[str, str] = {}

    @asynccontextmanager
    async def ask(
        self, request: Request, route: Route, headers: Headers, body: Body | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request, and yield the answer once its header has come. Raises Refused.

        headers: as `fields.to_upstream` makes them, and Content-Length if there is a body. body: of exactly that many bytes; if it
        breaks off, so does the request.
        """
        url = url_of(route.upstream, request.path, request.query)
        fields = [*headers, ("host", request.host_field)] if route.upstream.preserve_host else headers
        session = self._sessions[route.upstream.name]
        try:
            async with asyncio.timeout(_patience(route.limits, body is not None)):
                response = await session.request(request.method, url, headers=fields, data=body, allow_redirects=False)
        except TimeoutError as error:
            self._note(route.upstream, "does not answer in time")
            raise Refused("upstream_timeout") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if body is not None and body.trouble is not None:  # the client is at fault
                raise body.trouble from None
            self._note(route.upstream, f"cannot be asked: {type(error).__name__}")
            raise Refused("upstream_failed", type(error).__name__) from error
        self._note(route.upstream, "")
        try:
            if response.status < 200:
                raise Refused("upstream_failed", f"it answered {response.status}")
            yield response
        finally:
            response.close() if not response.content.at_eof() else response.release()

    def _note(self, upstream: Upstream, trouble: str) -> None:
        """Log how an upstream does, when that changes. No URL: a target may hold what is nobody's business."""
        if self._troubles.get(upstream.name, "") != trouble:
            self._troubles[upstream.name] = trouble
            log.log(logging.WARNING if trouble else logging.INFO, "upstream %s %s", upstream.name, trouble or "answers again")

    def session(self, name: str) -> aiohttp.ClientSession:
        """Return the pool of an upstream."""
        return self._sessions[name]

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()


def url_of(upstream: Upstream, path: str, query: str) -> URL:
    """Return the URL that is asked for, spelled as it is sent: nothing after this looks at the path again."""
    return URL(upstream.url + encode_path(path) + (f"?{query}" if query else ""), encoded=True)


def _patience(limits: Limits, has_body: bool) -> float:
    return limits.answer_seconds + (limits.body_seconds if has_body else 0)


def _session(upstream: Upstream) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=upstream.connections, keepalive_timeout=KEEP_ALIVE_SECONDS)
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_NOT_OURS_TO_ADD,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=upstream.connect_seconds),
        read_bufsize=BUFFER_BYTES,
        max_line_size=LINE_BYTES_MAX,
        max_field_size=LINE_BYTES_MAX,
        trust_env=False,
    )
