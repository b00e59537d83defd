"""A funding transaction without its witness: what proves an output's amount and script, by its hash alone.

A txid covers no witness, so whoever hands a transaction over can pad that as he likes; and nothing here needs it. Consensus bounds
what is left.
"""

from hashlib import sha256

STRIPPED_SIZE_MAX = 1_000_000
"""Bytes. A block weighs at most 4 000 000, and each byte outside the witness weighs 4."""

WHOLE_SIZE_MAX = 4_000_000
"""Bytes, with the witness, of which each byte weighs 1."""

_SEGWIT = b"\x00\x01"
_NO_PREVOUT = bytes(32) + b"\xff" * 4
_INPUT, _OUTPUT = (36, 4), (8, 0)  # bytes of one before its script and behind it


def without_witness(raw: bytes, txid: bytes) -> bytes:
    """Return a serialised transaction without its witness, proven by its id (32 bytes, internal order). Raises ValueError.

    The witness is cut away unread, and nothing beyond STRIPPED_SIZE_MAX is looked at.
    """
    stripped = raw
    if raw[4:6] == _SEGWIT:
        read = raw[: STRIPPED_SIZE_MAX + len(_SEGWIT)]
        end = _skip(read, *_count(read, _skip(read, *_count(read, 6), *_INPUT)), *_OUTPUT)
        stripped = raw[:4] + raw[6:end] + raw[-4:]
    if len(stripped) > STRIPPED_SIZE_MAX or not is_proven(stripped, txid):
        raise ValueError("it is another transaction, or none")
    return stripped


def is_proven(stripped: bytes, txid: bytes) -> bool:
    """Return whether bytes are the transaction of this id, without its witness."""
    return txid_without_witness(stripped) == txid


def txid_without_witness(stripped: bytes) -> bytes:
    """Return the id (32 bytes, internal order) of a transaction that has no witness, or lost it."""
    return sha256(sha256(stripped).digest()).digest()


def output_at(stripped: bytes, vout: int) -> tuple[int, bytes] | None:
    """Return value (satoshi, whatever the bytes say) and script pubkey of an output, None if there is none of this index.

    stripped: a transaction without its witness, proven by its id. Raises ValueError for bytes that end early.
    """
    count, at = _count(stripped, _skip(stripped, *_count(stripped, 4), *_INPUT))
    if vout >= count:
        return None
    at = _skip(stripped, vout, at, *_OUTPUT)
    size, script_at = _count(stripped, at + 8)
    if len(stripped) < script_at + size:
        raise ValueError("it ends early")
    return int.from_bytes(stripped[at : at + 8], "little"), stripped[script_at : script_at + size]


def is_coinbase(stripped: bytes) -> bool:
    """Return whether a transaction makes new coins: its only input spends nothing."""
    return stripped[4:41] == b"\x01" + _NO_PREVOUT


def _skip(raw: bytes, count: int, at: int, before: int, after: int) -> int:
    """Return where `count` inputs or outputs end that begin at `at`. before, after: bytes of one beside its script and that
    script's length. Raises ValueError."""
    try:
        for _ in range(count):
            at += before
            size = raw[at]
            if size < 0xFD:
                at += 1
            else:
                size, at = _count(raw, at)
            at += size + after
    except IndexError:
        raise ValueError("it ends early") from None
    return at


def _count(raw: bytes, at: int) -> tuple[int, int]:
    """Return a number as Bitcoin writes those of parts and bytes, and where it ends. Raises ValueError."""
    width = {0xFD: 2, 0xFE: 4, 0xFF: 8}.get(raw[at], 0) if at < len(raw) else 0
    end = at + 1 + width
    if len(raw) < end:
        raise ValueError("it ends early")
    return (int.from_bytes(raw[at + 1 : end], "little") if width else raw[at]), end
