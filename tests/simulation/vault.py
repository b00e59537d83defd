"""The simulated signer: the production policy over a dict that stands for its ledger's disk."""

import random
from collections.abc import Callable

from paychan.core.channel import ChannelTerms
from paychan.core.payment import Payment
from paychan.rpc.connection import ConnectionGone
from paychan.rpc.signer_client import SignerRefused
from paychan.rpc.signer_messages import Refusal, SettleRequest
from signer.ledger import DAY_SECONDS
from signer.policy import Memory, Policy, Record, judge, judge_note, objection

from .loop import Wire
from .storage import _Link


class Vault:
    """The signer process; its ledger survives. wall: its clock, unix seconds."""

    def __init__(self, policy: Policy, wall: Callable[[], int]) -> None:
        self.policy, self.is_up, self.signatures, self._wall = policy, True, 0, wall
        self._ledger: dict[bytes, Record] = {}
        self._fees: dict[bytes, tuple[int, int]] = {}
        self._noted: dict[bytes, int] = {}

    def settle(self, request: SettleRequest) -> bytes | Refusal:
        outpoint, now = request.terms.outpoint, self._wall()
        outcome = judge(self.policy, SettleRequest.decode(request.encode()), self._memory(outpoint, now), now)
        if isinstance(outcome, Refusal):
            return Refusal.decode(outcome.encode())
        self._ledger[outpoint] = outcome.record
        self._fees[outpoint] = now, max(outcome.record.fee, self._fees.get(outpoint, (0, 0))[1])
        self.signatures += 1
        return outcome.raw

    def objection(self, request: SettleRequest) -> Refusal | None:
        now = self._wall()
        return objection(self.policy, SettleRequest.decode(request.encode()), self._memory(request.terms.outpoint, now), now)

    def note(self, request: SettleRequest) -> Refusal | None:
        outcome = judge_note(self.policy, SettleRequest.decode(request.encode()))
        if isinstance(outcome, Refusal):
            return outcome
        outpoint = request.terms.outpoint
        self._noted[outpoint] = min(outcome, self._noted.get(outpoint, outcome))
        return None

    def _memory(self, outpoint: bytes, now: int) -> Memory:
        fees = sum(fee for other, (at, fee) in self._fees.items() if other != outpoint and now - DAY_SECONDS < at <= now)
        return Memory(self._ledger.get(outpoint), self._noted.get(outpoint), fees)


class MemorySignerClient:
    """`paychan.rpc.signer_client.SignerClient` without sockets."""

    def __init__(self, vault: Vault, wire: Wire, chance: random.Random) -> None:
        self._vault, self._wire, self._chance = vault, wire, chance
        self.public_key = vault.policy.pubkey
        self.link = _SignerLink(vault)

    async def judge(self, terms: ChannelTerms, payment: Payment, fee: int, funding_transaction: bytes) -> None:
        await self._cross()
        refusal = self._vault.objection(SettleRequest(terms, payment, fee, funding_transaction))
        await self._cross()
        if refusal is not None:
            raise SignerRefused(refusal)

    async def settle(self, terms: ChannelTerms, payment: Payment, fee: int, funding_transaction: bytes) -> bytes:
        await self._cross()
        outcome = self._vault.settle(SettleRequest(terms, payment, fee, funding_transaction))
        await self._cross()
        if isinstance(outcome, Refusal):
            raise SignerRefused(outcome)
        return outcome

    async def note(self, terms: ChannelTerms, payment: Payment, funding_transaction: bytes) -> None:
        await self._cross()
        refusal = self._vault.note(SettleRequest(terms, payment, 0, funding_transaction))
        await self._cross()
        if refusal is not None:
            raise SignerRefused(refusal)

    async def _cross(self) -> None:
        await self._wire.cross()
        if not self._vault.is_up or self._chance.random() < 0.01:
            raise ConnectionGone()


class _SignerLink(_Link):
    def __init__(self, vault: Vault) -> None:
        super().__init__()
        self._vault = vault

    @property
    def is_up(self) -> bool:
        return self._vault.is_up

    @is_up.setter
    def is_up(self, _: bool) -> None:
        """The vault says it."""
