"""The scripts that addresses stand for: where a settlement may pay to."""

P2PKH, P2SH, P2WPKH, P2WSH, P2TR = (
    (25, b"\x76\xa9\x14", b"\x88\xac"),
    (23, b"\xa9\x14", b"\x87"),
    (22, b"\x00\x14", b""),
    (34, b"\x00\x20", b""),
    (34, b"\x51\x20", b""),
)
"""Length in bytes, how it begins, how it ends; a hash or a key stands between."""

BASE58, SEGWIT = (P2PKH, P2SH), (P2WPKH, P2WSH, P2TR)
"""By how their addresses are written. Other witness programs are nobody's yet: who pays there pays anyone."""

ADDRESS_SCRIPT_SIZE_MAX = max(size for size, _, _ in BASE58 + SEGWIT)


def is_address_script(script: bytes) -> bool:
    """Return whether an address stands for this script: others may not be relayed, and may be of any length."""
    return any(_fits(script, form) for form in BASE58 + SEGWIT)


def is_segwit_script(script: bytes) -> bool:
    """Return whether a segwit address stands for this script, whose output is spent with a witness (BIP 141)."""
    return any(_fits(script, form) for form in SEGWIT)


def _fits(script: bytes, form: tuple[int, bytes, bytes]) -> bool:
    size, head, tail = form
    return len(script) == size and script.startswith(head) and script.endswith(tail)
