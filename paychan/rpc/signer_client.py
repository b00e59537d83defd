"""The server's side of the signer."""

import asyncio
import time
from collections.abc import Callable

from ..core.channel import ChannelTerms
from ..core.payment import Payment
from .connection import Address, ConnectionGone, FrameConnection, RemoteRefusal, TooLarge
from .link import Link
from .signer_messages import PAYLOAD_MAX, Refusal, RefusalCode, SettleRequest, SignerMessage

ANSWER_SECONDS_MAX = 10.0

ASKED_MAX = 8
"""Requests that one worker has at the signer, which answers one after the other: each has the time for the few before it, and not
for a thousand. The others wait here, for as long as it takes."""


class SignerRefused(Exception):
    """The signer judged and declined; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.code.name}: {refusal.detail}")
        self.refusal = refusal


class SignerClient:
    """A lasting connection to the signer. `public_key` is known after the first greeting, and may not change afterwards."""

    def __init__(self, address: Address, on_answer: Callable[[str, int], None] = lambda *_: None) -> None:
        """on_answer(outcome, nanoseconds) hears how each request ended: `answered`, `gone`, or the name of a RefusalCode."""
        self._on_answer = on_answer
        self.public_key = b""
        self.link = Link("signer", address, PAYLOAD_MAX, self._greet)
        self._places = asyncio.Semaphore(ASKED_MAX)

    async def settle(self, terms: ChannelTerms, payment: Payment, fee: int, funding_transaction: bytes) -> bytes:
        """Return the signed settlement. fee: satoshi. Raises SignerRefused, ConnectionGone."""
        return await self._ask(SignerMessage.SETTLE, SettleRequest(terms, payment, fee, funding_transaction))

    async def judge(self, terms: ChannelTerms, payment: Payment, fee: int, funding_transaction: bytes) -> None:
        """Return if such a settlement would be signed. Raises SignerRefused, ConnectionGone."""
        await self._ask(SignerMessage.JUDGE, SettleRequest(terms, payment, fee, funding_transaction))

    async def note(self, terms: ChannelTerms, payment: Payment, funding_transaction: bytes) -> None:
        """Have the signer remember a payment: it signs nothing that leaves the payer more. Raises SignerRefused, ConnectionGone."""
        await self._ask(SignerMessage.NOTE, SettleRequest(terms, payment, 0, funding_transaction))

    async def _ask(self, kind: SignerMessage, request: SettleRequest) -> bytes:
        async with self._places:
            outcome, began = "gone", time.monotonic_ns()
            try:
                answer = await self._ask_now(kind, request)
                outcome = "answered"
                return answer
            except SignerRefused as error:
                outcome = error.refusal.code.name.lower()
                raise
            finally:
                self._on_answer(outcome, time.monotonic_ns() - began)

    async def _ask_now(self, kind: SignerMessage, request: SettleRequest) -> bytes:
        connection = self.link.connection
        try:
            return await asyncio.wait_for(connection.call(kind, request.encode()), ANSWER_SECONDS_MAX)
        except TimeoutError:
            connection.close()
            raise ConnectionGone() from None
        except TooLarge as error:
            raise SignerRefused(Refusal(RefusalCode.MALFORMED, "the request is too large for it")) from error
        except RemoteRefusal as error:
            raise SignerRefused(Refusal.decode(error.payload)) from error

    async def _greet(self, connection: FrameConnection) -> None:
        key = await connection.call(SignerMessage.PUBLIC_KEY)
        if len(key) != 33 or self.public_key not in (b"", key):
            raise ConnectionGone("the signer has another key than before")
        self.public_key = key
