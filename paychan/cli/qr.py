"""A QR code for the terminal, if segno is installed (`pip install paychan[cli]`)."""

import io


def terminal_qr(text: str) -> str:
    """Return `text` as a QR code of block characters, empty without segno."""
    try:
        import segno
    except ImportError:
        return ""
    buffer = io.StringIO()
    segno.make(text, error="m", micro=False).terminal(out=buffer, compact=True)
    return buffer.getvalue()
