"""A QR code for the terminal."""

import io
from typing import TextIO


def terminal_qr(text: str, stream: TextIO | None) -> str:
    """Return `text` as a QR code of block characters; empty if the stream's encoding has no such characters."""
    import segno  # here, so that commands which show none start sooner

    buffer = io.StringIO()
    segno.make(text, error="m", micro=False).terminal(out=buffer, compact=True)
    code = buffer.getvalue()
    try:
        code.encode((stream and stream.encoding) or "ascii")
    except UnicodeEncodeError:
        return ""
    return code
