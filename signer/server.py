"""The signer's socket: four requests, public key, settle, note and judge. What may be signed is in `policy.py`."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from typing import NoReturn, Protocol

from paychan.core.outpoint import format_outpoint, txid_hex
from paychan.rpc.connection import Address, FrameConnection, listen
from paychan.rpc.signer_messages import PAYLOAD_MAX, Refusal, RefusalCode, SettleRequest, SignerMessage
from paychan.rpc.store_messages import MessageError

from .ledger import LedgerError
from .policy import Memory, Policy, Record, judge, judge_note, objection

log = logging.getLogger("paychan.signer")

CONNECTIONS_MAX = 512
"""Two for each worker of the largest server; below the 1024 descriptors that a process mostly has, for the ledger needs some."""

TRIES_MAX = 8
"""Times that a request is judged when signers of other machines come first each time."""

UNSENT_BYTES_MAX = 1 << 20
"""Answers that a server asked for and does not take: more would let it fill the signer's memory."""


class Ledgers(Protocol):
    """What was signed and noted: by this signer (ledger.py), or by all that have its key (shared.py). Methods raise LedgerError."""

    def get(self, outpoint: bytes, now: int) -> Memory:
        """Return what a judgement over an outpoint depends on. now: unix seconds."""

    def keep(self, outpoint: bytes, memory: Memory, record: Record, now: int) -> bool:
        """Make durable what was judged on `memory`; return whether it is. If not, another signer was first: judge anew."""

    def note(self, outpoint: bytes, change_value: int, now: int) -> None:
        """Make it durable that a payment left the payer so much (satoshi), unless less was noted before."""


class SignerServer:
    """Answers requests one after the other: what a request sees in the ledger is what the one before it left there.

    clock: gives unix seconds. fatal: ends the process at once; called when the ledger failed, before an answer. on_tcp: there is no
    telling who connects. user: the server's, None: ours.
    """

    def __init__(
        self,
        policy: Policy,
        ledger: Ledgers,
        clock: Callable[[], int],
        fatal: Callable[[], NoReturn],
        *,
        on_tcp: bool = False,
        user: int | None = None,
    ) -> None:
        self._policy, self._ledger, self._clock, self._fatal = policy, ledger, clock, fatal
        self._on_tcp, self._users = on_tcp, (0, os.geteuid() if user is None else user)
        self._peers: set[FrameConnection] = set()
        self._answers: dict[int, Callable[[SettleRequest], bytes | Refusal]] = {
            SignerMessage.SETTLE: self._sign,
            SignerMessage.NOTE: self._note,
            SignerMessage.JUDGE: self._object,
        }

    async def listen(self, address: Address, sock: socket.socket) -> asyncio.AbstractServer:
        """Start to answer at an address, to which `sock` is bound. Raises OSError."""
        return await listen(address, self.connection, sock)

    def connection(self) -> FrameConnection:
        """Return the protocol of one new connection."""
        return FrameConnection(PAYLOAD_MAX, self.on_frame, self._peers.discard, self.check_peer)

    def check_peer(self, connection: FrameConnection) -> None:
        """Let the server's user or root in, and no other. On TCP nobody can tell; the configuration chose that."""
        uid = connection.peer_uid()
        if uid not in self._users and not (uid is None and self._on_tcp):
            log.warning("refused a connection from user %s", uid)
            connection.close()
        elif len(self._peers) >= CONNECTIONS_MAX:
            log.warning("refused a connection: there are %d", len(self._peers))
            connection.close()
        else:
            self._peers.add(connection)

    def on_frame(self, connection: FrameConnection, kind: int, request_id: int, payload: bytes) -> None:
        """Answer one frame of a connection that was let in."""
        if connection not in self._peers or connection.unsent_bytes > UNSENT_BYTES_MAX:
            connection.close()
        elif kind == SignerMessage.PUBLIC_KEY:
            connection.reply(kind, request_id, self._policy.pubkey)
        elif kind in self._answers:
            answer = self._answer(self._answers[kind], payload)
            if isinstance(answer, Refusal):
                connection.refuse(request_id, answer.encode())
            else:
                connection.reply(kind, request_id, answer)
        else:
            connection.close()

    def _answer(self, judge: Callable[[SettleRequest], bytes | Refusal], payload: bytes) -> bytes | Refusal:
        """Return the answer to a request or a refusal. No exception leaves: it could carry what must stay here."""
        try:
            return judge(SettleRequest.decode(payload))
        except MessageError as error:
            return Refusal(RefusalCode.MALFORMED, str(error))
        except LedgerError as error:
            log.critical("the ledger failed, nothing is signed any more: %s", error)
            self._fatal()
        except Exception as error:
            log.error("a request failed with %s", type(error).__name__)
            return Refusal(RefusalCode.MALFORMED, "the request could not be judged")

    def _object(self, request: SettleRequest) -> bytes | Refusal:
        """Return nothing if the request would be signed, else why not. The ledger stays as it is."""
        outpoint, now = request.terms.outpoint, self._clock()
        refusal = objection(self._policy, request, self._ledger.get(outpoint, now), now)
        if refusal is not None:
            log.warning("would refuse %s: %s, %s", format_outpoint(outpoint), refusal.code.name, refusal.detail)
        return refusal or b""

    def _sign(self, request: SettleRequest) -> bytes | Refusal:
        """Return the signed transaction, or why it is refused."""
        outpoint, now = request.terms.outpoint, self._clock()
        for _ in range(TRIES_MAX):
            memory = self._ledger.get(outpoint, now)
            answer = judge(self._policy, request, memory, now)
            if isinstance(answer, Refusal):
                log.warning("refused %s: %s, %s", format_outpoint(outpoint), answer.code.name, answer.detail)
                return answer
            if self._ledger.keep(outpoint, memory, answer.record, now):
                break
        else:
            return Refusal(RefusalCode.TOO_MANY_VERSIONS, "signers of other machines were first each time")
        record = answer.record
        log.info(
            "signed %s: version %d, fee %d, settlement %s",
            format_outpoint(outpoint),
            record.versions,
            record.fee,
            txid_hex(record.txid),
        )
        return answer.raw

    def _note(self, request: SettleRequest) -> bytes | Refusal:
        outpoint = request.terms.outpoint
        answer = judge_note(self._policy, request)
        if isinstance(answer, Refusal):
            log.warning("refused to note %s: %s, %s", format_outpoint(outpoint), answer.code.name, answer.detail)
            return answer
        self._ledger.note(outpoint, answer, self._clock())
        return b""
