"""The signer's socket: two requests, public key and settle. What may be signed is in `policy.py`."""

import asyncio
import logging
import os
from collections.abc import Callable
from typing import NoReturn

from paychan.outpoint import format_outpoint, txid_hex
from paychan.rpc.connection import Address, FrameConnection, listen
from paychan.rpc.signer_messages import PAYLOAD_MAX, Refusal, RefusalCode, SettleRequest, SignerMessage
from paychan.rpc.store_messages import MessageError

from .ledger import Ledger, LedgerError
from .policy import Policy, judge

log = logging.getLogger("paychan.signer")


class SignerServer:
    """Answers requests one after the other: what a request sees in the ledger is what the one before it left there.

    clock: gives unix seconds. fatal: ends the process at once; called when the ledger failed, before an answer.
    """

    def __init__(self, policy: Policy, ledger: Ledger, clock: Callable[[], int], fatal: Callable[[], NoReturn]) -> None:
        self._policy, self._ledger, self._clock, self._fatal = policy, ledger, clock, fatal

    async def listen(self, address: Address) -> asyncio.AbstractServer:
        """Start to answer at an address. Raises OSError."""
        return await listen(address, self.connection)

    def connection(self) -> FrameConnection:
        """Return the protocol of one new connection."""
        return FrameConnection(PAYLOAD_MAX, self.on_frame, lambda _: None, self._check_peer)

    def _check_peer(self, connection: FrameConnection) -> None:
        """Close a connection from another user. On TCP nobody can tell; the configuration chose that."""
        uid = connection.peer_uid()
        if uid not in (None, 0, os.geteuid()):
            log.warning("refused a connection from user %d", uid)
            connection.close()

    def on_frame(self, connection: FrameConnection, kind: int, request_id: int, payload: bytes) -> None:
        """Answer one frame."""
        if kind == SignerMessage.PUBLIC_KEY:
            connection.reply(kind, request_id, self._policy.pubkey)
        elif kind == SignerMessage.SETTLE:
            answer = self._settle(payload)
            if isinstance(answer, Refusal):
                connection.refuse(request_id, answer.encode())
            else:
                connection.reply(kind, request_id, answer)
        else:
            connection.close()

    def _settle(self, payload: bytes) -> bytes | Refusal:
        """Return the signed transaction or a refusal. No exception leaves: it could carry what must stay here."""
        try:
            return self._sign(SettleRequest.decode(payload))
        except MessageError as error:
            return Refusal(RefusalCode.MALFORMED, str(error))
        except LedgerError as error:
            log.critical("the ledger failed, nothing is signed any more: %s", error)
            self._fatal()
        except Exception as error:
            log.error("a request failed with %s", type(error).__name__)
            return Refusal(RefusalCode.MALFORMED, "the request could not be judged")

    def _sign(self, request: SettleRequest) -> bytes | Refusal:
        outpoint = request.terms.outpoint
        before = self._ledger.get(outpoint)
        answer = judge(self._policy, request, before)
        if isinstance(answer, Refusal):
            log.warning("refused %s: %s, %s", format_outpoint(outpoint), answer.code.name, answer.detail)
            return answer
        if answer.record != before:
            self._ledger.put(outpoint, answer.record, self._clock())
        record = answer.record
        log.info(
            "signed %s: version %d, fee %d, settlement %s",
            format_outpoint(outpoint),
            record.versions,
            record.fee,
            txid_hex(record.txid),
        )
        return answer.raw
