"""Whether nodes will relay a transaction of ours: their policy rules, as far as our transactions can break them.

Bitcoin Core has no library for these; the rules here are its defaults (IsStandardTx, AreInputsStandard, dust). Checked before every
broadcast, because a refused settlement found out near the expiry is money lost.
"""

from bitcoin.core import CTransaction

from .._fast.payment import split_payment
from .address_script import is_address_script, is_segwit_script
from .settlement import SettlementError

SCRIPT_SIG_SIZE_MAX = 1650
TRANSACTION_SIZE_MAX = 100_000
RELAY_FEE_PER_KB_MIN = 1000
"""Satoshi; the default of nodes before 29.1, which later ones accept too."""

_DUST_FEE_PER_KB = 3000
_SPENDING_SIZE, _SEGWIT_SPENDING_SIZE = 148, 67
"""Bytes of an input that spends such an output later, as Bitcoin Core counts it: of a witness a quarter."""

_OP_PUSHDATA1, _OP_1, _OP_16 = 0x4C, 0x51, 0x60


def dust_limit(script_pubkey: bytes) -> int:
    """Return the least value in satoshi that an output with this script may have. Raises SettlementError for other types."""
    if not is_address_script(script_pubkey):
        raise SettlementError("an output's script is no address's")
    spending = _SEGWIT_SPENDING_SIZE if is_segwit_script(script_pubkey) else _SPENDING_SIZE
    return (8 + 1 + len(script_pubkey) + spending) * _DUST_FEE_PER_KB // 1000


def _pushes(script_sig: bytes) -> list[bytes]:
    """Return what a scriptSig pushes. Raises SettlementError unless it only pushes, each in the shortest form."""
    pushed, at = [], 0
    while at < len(script_sig):
        opcode = script_sig[at]
        at += 1
        if opcode == 0 or _OP_1 <= opcode <= _OP_16:
            pushed.append(b"" if opcode == 0 else bytes((opcode - _OP_1 + 1,)))
            continue
        if opcode == _OP_PUSHDATA1:
            size, at = script_sig[at] if at < len(script_sig) else 0, at + 1
            if size < _OP_PUSHDATA1:
                raise SettlementError("a push is cut off or not minimal")
        elif opcode < _OP_PUSHDATA1:
            size = opcode
        else:
            raise SettlementError("the scriptSig does more than push")
        data = script_sig[at : at + size]
        if len(data) != size or (size == 1 and data[0] <= 16):
            raise SettlementError("a push is cut off or not minimal")
        pushed.append(data)
        at += size
    return pushed


def check_standard(raw: bytes, funding_value: int) -> None:
    """Check a serialised settlement or refund that spends one output of `funding_value` satoshi. Raises SettlementError."""
    tx = CTransaction.deserialize(raw)
    if tx.nVersion not in (1, 2) or len(tx.vin) != 1 or not tx.vout:
        raise SettlementError("the version, the inputs or the outputs are not as nodes relay them")
    if len(raw) > TRANSACTION_SIZE_MAX or len(tx.vin[0].scriptSig) > SCRIPT_SIG_SIZE_MAX:
        raise SettlementError("the transaction or its scriptSig is too long")
    for output in tx.vout:
        if output.nValue < dust_limit(bytes(output.scriptPubKey)):
            raise SettlementError(f"an output of {output.nValue} satoshi is dust")
    fee = funding_value - sum(output.nValue for output in tx.vout)
    if fee * 1000 < RELAY_FEE_PER_KB_MIN * len(raw):
        raise SettlementError(f"a fee of {fee} satoshi is too low to be relayed")
    for signature in (data for data in _pushes(bytes(tx.vin[0].scriptSig))[:-1] if len(data) > 1):
        # a payment with a harmless value: its parser has the rules for strict DER and low S
        if split_payment(bytes(8) + signature[:-1] + b"\x82")[0]:
            raise SettlementError("a signature is not strict DER with low S")
