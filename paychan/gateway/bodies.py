"""A request's body on its way in: exactly as long as it says, and no slower than it may be."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from .models import Limits
from .refusals import Refused


class Body:
    """The body that RSGI hands out piece by piece. size: its Content-Length. It can be read once. trouble: why it broke off, if it
    did; who sends it on tells of that in its own words."""

    def __init__(self, proto: Any, size: int, limits: Limits) -> None:
        if size > limits.body_bytes:
            raise Refused("body_too_large", f"at most {limits.body_bytes} bytes are taken here")
        self._proto, self._size, self._limits = proto, size, limits
        self._is_begun = False
        self.trouble: Refused | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces. Raises Refused if the body ends early, or does not come in time; and if it is asked for again: a
        request whose body is under way is not sent twice."""
        if self._is_begun:
            raise Refused("upstream_failed", "the connection to it broke while the body was sent")
        self._is_begun, left = True, self._size
        deadline = asyncio.get_running_loop().time() + self._limits.body_seconds
        pieces = aiter(self._proto)
        while left:
            try:
                async with asyncio.timeout_at(deadline):
                    piece = bytes(await anext(pieces))
            except TimeoutError as error:
                self.trouble = Refused("request_timeout")
                raise self.trouble from error
            except (RuntimeError, StopAsyncIteration):  # RSGIProtocolClosed: the client is gone
                piece = b""
            if not piece or len(piece) > left:
                self.trouble = Refused("malformed_request", "the body ended early")
                raise self.trouble
            left -= len(piece)
            yield piece

    async def read(self) -> bytes:
        """Return it whole: for one that is small enough. Raises Refused."""
        return b"".join([piece async for piece in self])


class Held(Body):
    """A body that was read already."""

    def __init__(self, content: bytes) -> None:
        self.content, self.trouble = content, None
        self._is_begun = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield it, as often as it is asked for."""
        yield self.content
