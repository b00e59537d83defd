"""Messages between the server and the signer, as pure codecs. Frames carry them (`_fast/frame.pyx`)."""

import struct
from dataclasses import dataclass
from enum import IntEnum

from ..core.channel import ChannelTerms
from ..core.outpoint import OUTPOINT_SIZE
from ..core.payment import Payment, parse_payment
from .store_messages import MessageError

PAYLOAD_MAX = 1 << 20
"""Bytes. A settle request carries a funding transaction without its witness, which consensus keeps to STRIPPED_SIZE_MAX; all the
rest of it finds room beside that many times over."""


class SignerMessage(IntEnum):
    """Frame types. Replies add 128; a refusal is an ERROR frame with a `Refusal`."""

    PUBLIC_KEY = 1  # answer: 33 bytes
    SETTLE = 2  # answer: the serialised settlement transaction
    NOTE = 3  # the same request, without a fee; answer: empty. From then on no settlement leaves the payer more
    JUDGE = 4  # what SETTLE carries; answer: empty, it would be signed. Nothing is, and nothing is recorded


@dataclass(frozen=True)
class SettleRequest:
    """Everything the signer needs to rebuild and judge a settlement by itself.

    fee: satoshi. funding_transaction: without its witness, proves outpoint and amount; empty where none exists (debug mode).
    """

    terms: ChannelTerms
    payment: Payment
    fee: int
    funding_transaction: bytes

    # outpoint, fee, lengths of the terms record and of the payment; then terms, payment, funding transaction
    _HEAD = struct.Struct("<36sQHH")

    def encode(self) -> bytes:
        terms, payment = self.terms.serialize(), self.payment.serialize()
        head = self._HEAD.pack(self.terms.outpoint, self.fee, len(terms), len(payment))
        return head + terms + payment + self.funding_transaction

    @classmethod
    def decode(cls, payload: bytes) -> "SettleRequest":
        """Raises MessageError (ValueError and Rejection of the records are turned into it)."""
        if len(payload) < cls._HEAD.size:
            raise MessageError("SETTLE is too short")
        outpoint, fee, terms_size, payment_size = cls._HEAD.unpack_from(payload)
        payment_at = cls._HEAD.size + terms_size
        funding_at = payment_at + payment_size
        if len(payload) < funding_at:
            raise MessageError("SETTLE is too short")
        try:
            terms = ChannelTerms.parse(outpoint, payload[cls._HEAD.size : payment_at])
            payment = parse_payment(payload[payment_at:funding_at])
        except Exception as error:
            raise MessageError("SETTLE holds a malformed record") from error
        return cls(terms, payment, fee, payload[funding_at:])


class RefusalCode(IntEnum):
    """Why the signer did not sign. UNECONOMIC may pass when fees fall, FEE_TOO_HIGH nearer to the expiry, FEES_OF_THE_DAY tomorrow;
    the others are somebody's fault."""

    MALFORMED = 1
    NOT_OUR_CHANNEL = 2
    FUNDING_NOT_PROVEN = 3
    BAD_PAYMENT_SIGNATURE = 4
    FEE_TOO_HIGH = 5
    UNECONOMIC = 6
    GIVES_PAYER_MORE = 7
    FEE_FALLS = 8
    TOO_MANY_VERSIONS = 9
    FEES_OF_THE_DAY = 10


@dataclass(frozen=True)
class Refusal:
    """A refusal and its text, which holds no secret and no payment. fee: satoshi; with FEE_FALLS what the same payment was signed
    with, so that whoever lost that signature can ask for it again; with FEE_TOO_HIGH and FEES_OF_THE_DAY the most that would not
    be too high now, 0 if nothing would do."""

    code: RefusalCode
    detail: str
    fee: int = 0

    _HEAD = struct.Struct("<BQ")

    def encode(self) -> bytes:
        return self._HEAD.pack(self.code, self.fee) + self.detail.encode()

    @classmethod
    def decode(cls, payload: bytes) -> "Refusal":
        if len(payload) < cls._HEAD.size:
            raise MessageError("a refusal is too short")
        code, fee = cls._HEAD.unpack_from(payload)
        try:
            return cls(RefusalCode(code), payload[cls._HEAD.size :].decode(), fee)
        except ValueError as error:
            raise MessageError("an unknown refusal") from error


assert OUTPOINT_SIZE == 36, "the head above has the outpoint's size written out"
