"""The interface of a chain backend, shaped so that a node's JSON-RPC and an Esplora server fit behind it.

All methods may raise `Unavailable("chain_unavailable")`: the source is silent, and nothing is known.
"""

from dataclasses import dataclass
from typing import Protocol

from ..channel import ChannelTerms


@dataclass(frozen=True)
class FundingRequest:
    """Which output is looked for: the channel's keys and expiry, the script pubkey they lead to, maybe its outpoint."""

    client_pubkey: bytes
    exp_time: int
    script_pubkey: bytes
    outpoint: bytes | None = None


@dataclass(frozen=True)
class FundingOutput:
    """An unspent output that pays exactly the asked script pubkey. value: satoshi; confirmations: 0 while in the mempool."""

    outpoint: bytes
    value: int
    confirmations: int


class ChainBackend(Protocol):
    """What the server asks of the block chain."""

    async def find_funding(self, request: FundingRequest) -> list[FundingOutput]:
        """Return the unspent outputs that fit, at most FUNDING_OUTPUTS_MAX; an empty list if there are none."""

    async def funding_transaction(self, terms: ChannelTerms) -> bytes:
        """Return the serialised funding transaction, which proves the amount to the signer; empty where none exists."""

    async def fee_per_byte(self) -> int:
        """Return the fee to pay now, satoshi for each byte."""

    async def broadcast(self, transaction: bytes) -> None:
        """Publish a serialised transaction. Sending it again is no error. Raises BroadcastRefused with the source's reason."""

    async def confirmations(self, terms: ChannelTerms, txid: bytes) -> int:
        """Return how many blocks confirm the settlement `txid` of a channel; 0 if none does."""


class BroadcastRefused(Exception):
    """The source will not take the transaction; `str()` is its reason."""


FUNDING_OUTPUTS_MAX = 16
"""Outputs at one address that an open looks at; each costs a signature check."""
