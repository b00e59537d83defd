"""The simulated signer: the production policy over a dict that stands for its ledger's disk."""

import random

from paychan.core.channel import ChannelTerms
from paychan.core.payment import Payment
from paychan.rpc.connection import ConnectionGone
from paychan.rpc.signer_client import SignerRefused
from paychan.rpc.signer_messages import Refusal, SettleRequest
from signer.policy import Policy, Record, judge, objection

from .loop import Wire
from .storage import _Link


class Vault:
    """The signer process; its ledger survives."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.is_up, self.signatures = policy, True, 0
        self._ledger: dict[bytes, Record] = {}

    def settle(self, request: SettleRequest) -> bytes | Refusal:
        outpoint = request.terms.outpoint
        outcome = judge(self.policy, SettleRequest.decode(request.encode()), self._ledger.get(outpoint))
        if isinstance(outcome, Refusal):
            return Refusal.decode(outcome.encode())
        self._ledger[outpoint] = outcome.record
        self.signatures += 1
        return outcome.raw

    def objection(self, request: SettleRequest) -> Refusal | None:
        return objection(self.policy, SettleRequest.decode(request.encode()), self._ledger.get(request.terms.outpoint))


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
