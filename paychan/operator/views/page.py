"""The page: its files, read once, and the headers that keep it from running or loading anything else."""

from pathlib import Path

from ...core.errors import Rejection
from ..answers import Answer, Headers, Request
from ..context import Context

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""What the page may load and run: its own files, and nothing inline. It makes no text into markup, and the browser would refuse
to."""

_KINDS = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
_KINDS[".svg"] = "image/svg+xml"

HEADERS: Headers = (
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ("cache-control", "no-cache"),
)

_DIRECTORY = Path(__file__).parent.parent / "page"


def _read() -> dict[str, Answer]:
    return {
        path.name: Answer(200, path.read_bytes(), (("content-type", _KINDS[path.suffix]), *HEADERS))
        for path in sorted(_DIRECTORY.iterdir())
        if path.suffix in _KINDS
    }


FILES = _read()
"""By name: what is not here does not exist, whatever a path says."""


async def start(_: Context, __: Request) -> Answer:
    """Answer GET /."""
    return FILES["index.html"]


async def file(_: Context, request: Request) -> Answer:
    """Answer GET /page/NAME."""
    found = FILES.get(request.parts["name"])
    if found is None:
        raise Rejection("no_such_route")
    return found
