"""What stands behind a proxy: as little as an ASGI application can be."""

from typing import Any

START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"11")],
}


async def app(scope: Any, _: Any, send: Any) -> None:
    """Answer whatever is asked."""
    if scope["type"] == "http":
        await send(START)
        await send({"type": "http.response.body", "body": b'{"ok":true}'})
