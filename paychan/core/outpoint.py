"""Outpoint: which transaction output funds a channel. It is the channel's identity everywhere.

Its one canonical form is 36 bytes: the transaction id in *internal* byte order, then the output index, little-endian
(the order in which Bitcoin serialises it). Display order (reversed hex) exists only at the HTTP and RPC edges.
"""

import re

from .errors import Rejection

TXID_SIZE = 32
OUTPOINT_SIZE = 36
_TXID_HEX = re.compile(r"[0-9a-fA-F]{64}\Z")
_VOUT = re.compile(r"(0|[1-9][0-9]{0,9})\Z")
_VOUT_MAX = 0xFFFFFFFF


def make_outpoint(txid: bytes, vout: int) -> bytes:
    """Return the 36-byte outpoint of a 32-byte txid (internal order) and an output index (u32)."""
    if len(txid) != TXID_SIZE:
        raise ValueError("a txid has 32 bytes")
    return txid + vout.to_bytes(4, "little")


def parse_outpoint(txid_hex: str, vout_text: str) -> bytes:
    """Return the 36-byte outpoint spelled by a display-order hex txid and a decimal index.

    Each outpoint has one spelling (but for the case of the hex digits): aliases would be second channels.
    Raises: Rejection("invalid_txid") or Rejection("invalid_vout").
    """
    if not _TXID_HEX.match(txid_hex):
        raise Rejection("invalid_txid", parameter="funding_txid")
    if not _VOUT.match(vout_text) or int(vout_text) > _VOUT_MAX:
        raise Rejection("invalid_vout", parameter="funding_vout")
    return make_outpoint(bytes.fromhex(txid_hex)[::-1], int(vout_text))


def txid_of(outpoint: bytes) -> bytes:
    """Return the 32-byte txid, internal order."""
    return outpoint[:TXID_SIZE]


def vout_of(outpoint: bytes) -> int:
    """Return the output index."""
    return int.from_bytes(outpoint[TXID_SIZE:], "little")


def txid_hex(txid: bytes) -> str:
    """Return a txid (32 bytes, internal order) as people and RPC calls write it: reversed, in hex."""
    return txid[::-1].hex()


def format_outpoint(outpoint: bytes) -> str:
    """Return `TXID/VOUT`, the form in a channel's URL."""
    return f"{txid_hex(txid_of(outpoint))}/{vout_of(outpoint)}"
