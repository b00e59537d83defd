"""The interface of a chain backend, shaped so that a node's JSON-RPC and an Esplora server fit behind it.

Every method that asks the source may raise `Unavailable("chain_unavailable")`: it is silent, contradicts itself, or is of another
chain, and nothing is known. Its detail says why, in words that an operator understands.
"""

from dataclasses import dataclass
from typing import Protocol

from ..core.channel import ChannelTerms
from ..core.units import LOCKTIME_MAX

FUNDING_OUTPUTS_MAX = 16
"""Outputs at one address that an open looks at; each costs a signature check."""

HEIGHT_MAX = 1 << 31
"""Above every height that there will be for some thousand years."""

UNKNOWN = -1
"""Confirmations of a transaction that the source knows neither in a block nor in its mempool."""


@dataclass(frozen=True)
class Tip:
    """The best block. Times in unix seconds; `median_time_past` is what lock times are held against (BIP 113)."""

    height: int
    block_hash: bytes
    time: int
    median_time_past: int

    @property
    def is_possible(self) -> bool:
        """Whether a block can have these numbers. What a source says is held against it before anything believes it."""
        times = (self.time, self.median_time_past)
        return 0 <= self.height <= HEIGHT_MAX and all(0 <= seconds <= LOCKTIME_MAX for seconds in times)


@dataclass(frozen=True)
class FundingRequest:
    """Which output is looked for: the channel's keys and expiry, the script pubkey they lead to, maybe its outpoint."""

    client_pubkey: bytes
    exp_time: int
    script_pubkey: bytes
    outpoint: bytes | None = None


@dataclass(frozen=True)
class FundingOutput:
    """An unspent output (mempool included) that pays exactly the asked script pubkey. value: satoshi, as the source says;
    confirmations: 0 while in the mempool."""

    outpoint: bytes
    value: int
    confirmations: int
    is_coinbase: bool = False


@dataclass(frozen=True)
class FundingStatus:
    """What became of a channel's funding output. confirmations: of its transaction, UNKNOWN if it has disappeared.
    spent_by: txid of what spends it (32 bytes, internal order), empty if nothing does, or if the
    source cannot name it. spent_confirmations: of the spender."""

    confirmations: int
    is_spent: bool = False
    spent_by: bytes = b""
    spent_confirmations: int = 0


@dataclass(frozen=True)
class Spender:
    """A transaction that spends a channel's funding output. transaction: its bytes, empty if the source does not have them. fees:
    satoshi, what it and all that descends from it in the mempool pay; None if the source does not tell."""

    transaction: bytes = b""
    fees: int | None = None


class ChainBackend(Protocol):
    """What the server asks of the block chain."""

    async def start(self) -> None:
        """Connect and check that the source is of the right network and usable; called again until it returns."""

    async def stop(self) -> None:
        """Close connections."""

    async def tip(self) -> Tip:
        """Return the best block."""

    async def find_funding(self, request: FundingRequest) -> list[FundingOutput]:
        """Return the unspent outputs that fit, at most FUNDING_OUTPUTS_MAX; an empty list if there are none."""

    async def funding_status(self, terms: ChannelTerms, settlement_txid: bytes = b"") -> FundingStatus:
        """Return what became of a channel's funding output; `settlement_txid` is the spender that we know of, if any."""

    async def funding_transaction(self, terms: ChannelTerms) -> bytes:
        """Return the funding transaction without its witness (`core/funding.py`), which proves the amount to the signer; empty
        where none exists."""

    async def fee_per_byte(self, blocks: int) -> int | None:
        """Return the fee with which a transaction should confirm within `blocks`, satoshi for each byte, rounded up; None if the
        source has no estimate for so few blocks."""

    async def spender(self, txid: bytes) -> Spender:
        """Return what the source has of a transaction that it named as a funding output's spender, in a block or in its mempool."""

    async def relay_fee_per_kb(self) -> int | None:
        """Return what the source's mempool asks of any transaction now, satoshi for 1000 bytes; None if it does not tell."""

    async def broadcast(self, transaction: bytes) -> None:
        """Publish a serialised transaction. Sending it again is no error. Raises BroadcastRefused with the source's reason."""


class BroadcastRefused(Exception):
    """The source will not take the transaction; `str()` is its reason. for_fee: it would if that paid more."""

    def __init__(self, reason: str, for_fee: bool = False) -> None:
        super().__init__(reason)
        self.for_fee = for_fee


FEE_REASONS = ("min relay fee not met", "mempool min fee not met", "insufficient fee", "replacement-failed")
"""What Bitcoin Core says of a transaction that pays too little: at all, for a full mempool, to replace what it conflicts with
(before version 31, and since)."""


def is_for_fee(reason: str) -> bool:
    """Return whether a node's reason to refuse a transaction is its fee."""
    return any(known in reason for known in FEE_REASONS)
