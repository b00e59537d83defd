"""What a stranger can make of somebody's settlement without any key: copies that push another true value in place of OP_1.

They pay the same outputs, with the same signatures, under another txid; the largest has 524 bytes more than the original.
"""

from bitcoin.core import CMutableTransaction, CTransaction
from bitcoin.core.script import CScript

OP_PUSHDATA1, OP_PUSHDATA2, OP_1 = 0x4C, 0x4D, 0x51
LARGEST = 520


def minimal_push(data: bytes) -> bytes:
    """Return the shortest push of up to 520 bytes, as nodes relay it."""
    if len(data) == 1 and 1 <= data[0] <= 16:
        return bytes((OP_1 + data[0] - 1,))
    if len(data) < OP_PUSHDATA1:
        return bytes((len(data),)) + data
    if len(data) <= 0xFF:
        return bytes((OP_PUSHDATA1, len(data))) + data
    return bytes((OP_PUSHDATA2,)) + len(data).to_bytes(2, "little") + data


def with_script_sig(raw: bytes, script_sig: bytes) -> bytes:
    """Return a transaction with another scriptSig in its first input."""
    copy = CMutableTransaction.from_tx(CTransaction.deserialize(raw))
    copy.vin[0].scriptSig = CScript(script_sig)
    return CTransaction.from_tx(copy).serialize()


def split_script_sig(raw: bytes) -> tuple[bytes, bytes, bytes]:
    """Return what stands before OP_1 in a settlement's scriptSig (both signatures), the value in its place, and what follows."""
    script_sig = bytes(CTransaction.deserialize(raw).vin[0].scriptSig)
    at = 1 + script_sig[0]
    at += 1 + script_sig[at]
    end = at + 1
    if script_sig[at] == OP_PUSHDATA2:
        end = at + 3 + int.from_bytes(script_sig[at + 1 : at + 3], "little")
    elif script_sig[at] == OP_PUSHDATA1:
        end = at + 2 + script_sig[at + 1]
    elif script_sig[at] < OP_PUSHDATA1:
        end = at + 1 + script_sig[at]
    return script_sig[:at], script_sig[at:end], script_sig[end:]


def with_flag(raw: bytes, push: bytes) -> bytes:
    """Return a settlement with these bytes of script in place of OP_1."""
    before, _, after = split_script_sig(raw)
    return with_script_sig(raw, before + push + after)


def inflated(raw: bytes, size: int = LARGEST) -> bytes:
    """Return a copy that pushes so many bytes in place of OP_1."""
    return with_flag(raw, minimal_push(b"\x07" * size))


def renamed(raw: bytes, number: int = 2) -> bytes:
    """Return a copy of the same size under another txid."""
    return with_flag(raw, bytes((OP_1 + number - 1,)))
