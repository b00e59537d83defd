"""Reading segwit addresses: Bech32 for witness version 0 (BIP 173), Bech32m from version 1 on (BIP 350). Pure.

python-bitcoinlib has no Bech32m, and takes addresses of version 1 in Bech32, which BIP 350 forbids.
"""

SYMBOLS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
"""The symbol of each value of 5 bits."""

TEXT_SIZE_MAX = 90
CHECKSUM_SIZE = 6
BECH32, BECH32M = 1, 0x2BC830A3
"""What is left of a text whose checksum is right, by which the two encodings differ."""

PROGRAM_SIZES = range(2, 41)
VERSION_MAX = 16

_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def decode_segwit(text: str) -> tuple[str, int, bytes]:
    """Return human-readable part, witness version and witness program of an address. Raises ValueError for any other text."""
    prefix, values, encoding = decode(text)
    if not values or values[0] > VERSION_MAX:
        raise ValueError("no witness version")
    version, program = values[0], _to_bytes(values[1:])
    if len(program) not in PROGRAM_SIZES or (version == 0 and len(program) not in (20, 32)):
        raise ValueError("no witness program has this length")
    if encoding != (BECH32M if version else BECH32):
        raise ValueError("the encoding is that of other witness versions")
    return prefix, version, program


def decode(text: str) -> tuple[str, list[int], int]:
    """Return the human-readable part, the values of 5 bits without the checksum, and BECH32 or BECH32M. Raises ValueError."""
    if len(text) > TEXT_SIZE_MAX or any(not "!" <= symbol <= "~" for symbol in text):
        raise ValueError("too long, or with other symbols")
    if text not in (text.lower(), text.upper()):
        raise ValueError("in mixed case")
    prefix, separator, data = text.lower().rpartition("1")
    if not (prefix and separator) or len(data) < CHECKSUM_SIZE or any(symbol not in SYMBOLS for symbol in data):
        raise ValueError("no Bech32")
    values = [SYMBOLS.index(symbol) for symbol in data]
    left = _remainder([*(ord(symbol) >> 5 for symbol in prefix), 0, *(ord(symbol) & 31 for symbol in prefix), *values])
    if left not in (BECH32, BECH32M):
        raise ValueError("a wrong checksum")
    return prefix, values[:-CHECKSUM_SIZE], left


def _remainder(values: list[int]) -> int:
    """Return the remainder of a polynomial, whose coefficients the values are, by the code's generator."""
    left = 1
    for value in values:
        top, left = left >> 25, (left & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATORS):
            if top >> bit & 1:
                left ^= generator
    return left


def _to_bytes(values: list[int]) -> bytes:
    """Return values of 5 bits as bytes; what is left over must be fewer than 5 bits, all zero. Raises ValueError."""
    size, over = divmod(5 * len(values), 8)
    number = 0
    for value in values:
        number = number << 5 | value
    if over > 4 or number & (1 << over) - 1:
        raise ValueError("the padding is none")
    return (number >> over).to_bytes(size, "big")
