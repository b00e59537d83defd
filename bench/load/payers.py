"""Payers in bulk: the channel with number i of a seed has always the same key and terms, and signs its payments in advance.

A request is (bytes, is it a batch, [(status, value left, value received), ...]), as `Client.give` takes it.
"""

import base64
import struct
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import count
from urllib.parse import quote

from bench.load.signing import public_key, sign_payments
from paychan.chain.debug import DEBUG_FUNDING_VALUE, debug_outpoint
from paychan.core.channel import ChannelState, ChannelTerms, Phase
from paychan.core.network import TEST, decode_address
from paychan.core.outpoint import OUTPOINT_SIZE, format_outpoint
from paychan.core.payment import SIGHASH_CHANGE, Payment

CHANGE_ADDRESS = "mmA2XECa7bVERzQKkyy1pNBQ3PC4HnxTC5"
CHANGE_SCRIPT = decode_address(TEST, CHANGE_ADDRESS)
OPEN_AMOUNT = 100_000
"""Satoshi, of the payment that opens a channel."""

EXP_TIME = 4_000_000_000
"""The year 2096: fixed, so that a channel's outpoint follows from its key alone."""

Expected = tuple[int, int | None, int | None]
Request = tuple[bytes, bool, list[Expected]]


class Payer:
    """The payer of one channel that debug mode funds. `left`: satoshi that the newest signed payment leaves to it.

    host: what its payments' Host says.
    """

    __slots__ = ("secret", "terms", "left", "_redeem", "_head", "_tail")

    def __init__(self, seed: str, number: int, server_pubkey: bytes, exp_time: int = EXP_TIME, host: str = "127.0.0.1") -> None:
        self.secret = sha256(f"{seed}/{number}".encode()).digest()
        pubkey = public_key(self.secret)
        outpoint = debug_outpoint(pubkey, exp_time)
        self.terms = ChannelTerms(outpoint, server_pubkey, pubkey, exp_time, DEBUG_FUNDING_VALUE, CHANGE_SCRIPT)
        self.left = DEBUG_FUNDING_VALUE
        self._redeem = self.terms.redeem_script
        self._head = b"PUT /v1/channels/%s?payment=" % format_outpoint(outpoint).encode()
        self._tail = b" HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n" % host.encode()

    def sign(self, payments: int, amount: int = 1) -> list[bytes]:
        """Sign payments in binary form: the first pays `amount` satoshi, each other one satoshi."""
        first = self.left - amount
        self.left = first - payments + 1
        return sign_payments(self.secret, self.terms.outpoint, self._redeem, CHANGE_SCRIPT, first, payments)

    def opening(self, amount: int = OPEN_AMOUNT) -> str:
        """Return path and query of the request that opens the channel with a payment of `amount` satoshi."""
        text = base64.urlsafe_b64encode(self.sign(1, amount)[0]).decode()
        return (
            f"/v1/channels/new?client_pubkey={self.terms.client_pubkey.hex()}&exp_time={self.terms.exp_time}"
            f"&change_address={CHANGE_ADDRESS}&payment={quote(text)}"
        )

    def records(self) -> tuple[bytes, bytes]:
        """Return the terms and state records of the channel as it is after its opening payment, truly signed."""
        (raw,) = self.sign(1, OPEN_AMOUNT)
        payment = Payment(self.left, raw[8:-1], SIGHASH_CHANGE)
        return self.terms.serialize(), ChannelState(Phase.OPEN, payment).serialize()

    def was_opened(self) -> None:
        """Take note that the opening payment has been made, by `populate`."""
        self.left = DEBUG_FUNDING_VALUE - OPEN_AMOUNT

    def pay(self, payments: int) -> list[Request]:
        """Return payments of one satoshi each, one for each request."""
        lefts = count(self.left - 1, -1)
        return [self.put(raw, (200, left, 1)) for raw, left in zip(self.sign(payments), lefts)]  # noqa: B905

    def put(self, raw: bytes, expected: Expected) -> Request:
        """Return the request that makes one payment, or offers whatever `raw` is."""
        return self._head + base64.urlsafe_b64encode(raw) + self._tail, False, [expected]

    def replay(self) -> Request:
        """Return the newest payment once more: the server acknowledges it and gains nothing."""
        first = self.left
        (raw,) = sign_payments(self.secret, self.terms.outpoint, self._redeem, CHANGE_SCRIPT, first, 1)
        return self.put(raw, (200, first, 0))

    def closing(self) -> str:
        """Return path and query of the request that closes the channel with the newest payment."""
        (raw,) = sign_payments(self.secret, self.terms.outpoint, self._redeem, CHANGE_SCRIPT, self.left, 1)
        return f"/v1/channels/{format_outpoint(self.terms.outpoint)}?payment={base64.urlsafe_b64encode(raw).decode()}"

    def batch(self, payments: int) -> Request:
        """Return payments of one satoshi each in one request."""
        lefts = range(self.left - 1, self.left - 1 - payments, -1)
        parts = [self.terms.outpoint + struct.pack("B", len(raw)) + raw for raw in self.sign(payments)]
        return batch_request(parts, [(200, left, 1) for left in lefts])

    def malformed(self) -> Request:
        """Return a request whose signature is no DER: refused by its form alone."""
        return self.put(self.left.to_bytes(8, "little") + bytes(70) + bytes((SIGHASH_CHANGE,)), (400, None, None))

    def to_unknown(self, number: int) -> Request:
        """Return a well-formed payment on a channel that does not exist, another one for each number."""
        outpoint = sha256(self.secret + number.to_bytes(8, "little")).digest() + bytes(OUTPOINT_SIZE - 32)
        request, _, _ = self.replay()
        return (
            request.replace(format_outpoint(self.terms.outpoint).encode(), format_outpoint(outpoint).encode()),
            False,
            [(404, None, None)],
        )


def batch_request(parts: Iterable[bytes], expected: Sequence[Expected]) -> Request:
    """Return the batch of payments: outpoint, u8 length and binary payment each."""
    body = b"".join(parts)
    head = "POST /v1/payments HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\nContent-Length: "
    return f"{head}{len(body)}\r\n\r\n".encode() + body, True, list(expected)
