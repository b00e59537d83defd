"""The channel's redeem script and its P2SH funding output (BIP 16, BIP 65; spec section 3)."""

from bitcoin.core import Hash160

from .network import Network, p2sh_address
from .units import is_expiry

PUBKEY_SIZE = 33

OP_PUSHDATA1 = 0x4C
OP_1NEGATE, OP_1, OP_16 = 0x4F, 0x51, 0x60

ELEMENT_SIZE_MAX = 520
"""Bytes; a longer push makes a script invalid (Bitcoin consensus)."""


def encode_script_number(number: int) -> bytes:
    """Return a non-negative integer as a minimal script number: little-endian, its top bit clear (so 5 bytes from 2^31)."""
    if number < 0:
        raise ValueError("script numbers here are never negative")
    return number.to_bytes(number.bit_length() // 8 + 1, "little") if number else b""


def push(data: bytes) -> bytes:
    """Return the shortest script push of `data`, up to 255 bytes."""
    if len(data) < OP_PUSHDATA1:
        return bytes((len(data),)) + data
    if len(data) <= 0xFF:
        return bytes((OP_PUSHDATA1, len(data))) + data
    raise ValueError("this push is longer than any that a channel needs")


def read_pushes(script: bytes) -> list[bytes] | None:
    """Return what a script pushes, in whatever form consensus takes, or None if it does anything else, or is cut off."""
    pushed, at = [], 0
    while at < len(script):
        opcode, at = script[at], at + 1
        if opcode == OP_1NEGATE or OP_1 <= opcode <= OP_16:
            pushed.append(b"\x81" if opcode == OP_1NEGATE else bytes((opcode - OP_1 + 1,)))
            continue
        size, width = opcode, 0
        if OP_PUSHDATA1 <= opcode < OP_1NEGATE:
            width = 1 << (opcode - OP_PUSHDATA1)  # the length stands in 1, 2 or 4 bytes
            size = int.from_bytes(script[at : at + width], "little")
        elif opcode > OP_PUSHDATA1:
            return None
        at += width
        if at + size > len(script):
            return None
        pushed.append(script[at : at + size])
        at += size
    return pushed


def redeem_script(server_pubkey: bytes, client_pubkey: bytes, exp_time: int) -> bytes:
    """Return the script that locks the funding output: both may spend, or after `exp_time` the payer alone.

    Keys: 33 bytes, compressed. exp_time: unix seconds. Length: 80 bytes, 81 from 2^31 on.
    """
    if len(server_pubkey) != PUBKEY_SIZE or len(client_pubkey) != PUBKEY_SIZE:
        raise ValueError("public keys have 33 bytes")
    if not is_expiry(exp_time):
        raise ValueError("exp_time is not a lock time in unix seconds")
    return (
        b"\x63" + push(server_pubkey) + b"\xad"  # IF <server> CHECKSIGVERIFY
        b"\x67" + push(encode_script_number(exp_time)) + b"\xb1\x75"  # ELSE <time> CHECKLOCKTIMEVERIFY DROP
        b"\x68" + push(client_pubkey) + b"\xac"  # ENDIF <client> CHECKSIG
    )


def p2sh_script_pubkey(redeem: bytes) -> bytes:
    """Return the 23-byte script pubkey that pays to a redeem script."""
    return b"\xa9\x14" + Hash160(redeem) + b"\x87"


def funding_address(network: Network, redeem: bytes) -> str:
    """Return the base58check address at which the payer funds the channel."""
    return p2sh_address(network, Hash160(redeem))
