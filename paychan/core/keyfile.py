"""The text of a key file, the payer's and the signer's: 64 hexadecimal digits, either case, and the end of a line."""

import re

KEY_FILE_SIZE_MAX = 66
"""Bytes; with a line end of two."""

_TEXT = re.compile(rb"([0-9a-fA-F]{64})(\r?\n)?")


def parse_key_text(content: bytes) -> bytes | None:
    """Return the 32 bytes of a secret key, or None for any other text. Whether it is a key of the curve is not looked at."""
    match = _TEXT.fullmatch(content)
    return bytes.fromhex(match[1].decode()) if match else None
