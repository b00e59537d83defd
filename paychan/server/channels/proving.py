"""The last step before a channel opens: whatever would keep it from being settled is found while there is no money on it.

The funding transaction is fetched while its output is certainly unspent, the signer judges the settlement dry, and the transaction
is kept with the channel: no settlement, and none that is signed again with a higher fee, asks the chain's source for it later.
"""

from ...chain.base import ChainBackend
from ...core.channel import ChannelTerms
from ...core.errors import Rejection, Unavailable
from ...core.payment import Payment
from ...core.settlement import LONGEST_DESTINATION, Uneconomic, settlement_size_max
from ...rpc.connection import ConnectionGone, RemoteRefusal
from ...rpc.signer_client import SignerClient, SignerRefused
from ...rpc.signer_messages import RefusalCode
from ...rpc.store_client import StoreClient


class Proving:
    """Proves that a channel would be settled. fee_floor: satoshi for each byte, the least that a settlement pays; None: a channel
    may be worth less than that (debug mode)."""

    def __init__(self, chain: ChainBackend, signer: SignerClient, store: StoreClient, fee_floor: int | None) -> None:
        self._chain, self._signer, self._store, self._fee_floor = chain, signer, store, fee_floor

    async def prove(self, terms: ChannelTerms, payment: Payment) -> None:
        """Return once the signer has said that it would settle the channel with this payment, and the proof is on disk.

        Raises Rejection("not_settleable"), Unavailable("chain_unavailable", "signer_unavailable", "store_unavailable").
        """
        proof = await self._chain.funding_transaction(terms)
        await self._judge(terms, payment, proof)
        try:
            if proof:
                await self._store.keep_funding(proof)
        except (ConnectionGone, RemoteRefusal) as error:
            raise Unavailable("store_unavailable") from error

    async def _judge(self, terms: ChannelTerms, payment: Payment, proof: bytes) -> None:
        try:
            await self._signer.judge(terms, payment, self._fee(terms, payment), proof)
        except Uneconomic as error:
            raise Rejection("not_settleable", f"A settlement does not pay: {error}") from error
        except SignerRefused as error:
            code = error.refusal.code
            if self._fee_floor is not None or code is not RefusalCode.UNECONOMIC:
                raise Rejection("not_settleable", f"The signer would not settle this channel: {code.name.lower()}") from error
        except ConnectionGone as error:
            raise Unavailable("signer_unavailable") from error

    def _fee(self, terms: ChannelTerms, payment: Payment) -> int:
        """Return the least fee that the channel's settlement would be signed with, satoshi. Raises Uneconomic."""
        if self._fee_floor is None:
            return 0
        return self._fee_floor * settlement_size_max(terms, payment, LONGEST_DESTINATION)
