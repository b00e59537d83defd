"""A QR code for the terminal."""

import io


def terminal_qr(text: str) -> str:
    """Return `text` as a QR code of block characters."""
    import segno  # here, so that commands which show none start sooner

    buffer = io.StringIO()
    segno.make(text, error="m", micro=False).terminal(out=buffer, compact=True)
    return buffer.getvalue()
