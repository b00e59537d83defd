"""A payment: what the payer keeps, and its signature over exactly that (spec section 4).

Binary form: change value (8 bytes, little-endian satoshi), strict DER signature, one sighash type byte. Text form:
canonical base64url, with or without its padding. The rules themselves are compiled (`paychan/_fast/payment.pyx`);
this is their face for code off the hot path.
"""

import base64
from dataclasses import dataclass

from .._fast.payment import decode_payment_text, split_payment
from .errors import BY_NUMBER, Rejection

SIGHASH_CHANGE = 0x83
"""SINGLE|ANYONECANPAY: the payer signs for its own input and for output 0, its change."""

SIGHASH_NO_CHANGE = 0x82
"""NONE|ANYONECANPAY: the payer gives up everything; the change value is 0 and the channel is exhausted."""


@dataclass(frozen=True, slots=True)
class Payment:
    """`change_value` in satoshi; `signature` in strict DER without the sighash type byte."""

    change_value: int
    signature: bytes
    sighash_type: int

    @property
    def exhausts(self) -> bool:
        """Whether nothing is left for the payer after this payment."""
        return self.sighash_type == SIGHASH_NO_CHANGE

    def serialize(self) -> bytes:
        """Return the binary form."""
        return self.change_value.to_bytes(8, "little") + self.signature + bytes((self.sighash_type,))

    def encode(self) -> str:
        """Return the text form, padded as the original server pads it."""
        return base64.urlsafe_b64encode(self.serialize()).decode("ascii")


def parse_payment(raw: bytes) -> Payment:
    """Return the payment in `raw` (binary form), checked for everything but its signature's truth.

    Raises: Rejection with one of the codes from "invalid_payment" to "change_value_range".
    """
    status, change_value, signature, sighash_type = split_payment(raw)
    if status:
        raise Rejection(BY_NUMBER[status].code, parameter="payment")
    return Payment(change_value, signature, sighash_type)


def decode_payment(text: str) -> Payment:
    """Return the payment in `text` (text form). Raises as `parse_payment`, and Rejection("invalid_base64")."""
    status, raw = decode_payment_text(text)
    if status:
        raise Rejection(BY_NUMBER[status].code, parameter="payment")
    return parse_payment(raw)
