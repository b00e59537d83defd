"""The debug backend: every payer's channel is funded by an output that nobody ever made (spec section 9). Network test only."""

import hashlib

from ..core.channel import ChannelTerms
from ..core.outpoint import make_outpoint
from .base import FundingOutput, FundingRequest
from .outbox import OutboxChain

DEBUG_FUNDING_VALUE = 12_345_678_900_000
"""Satoshi."""

DEBUG_CONFIRMATIONS = 27


def debug_outpoint(client_pubkey: bytes, exp_time: int) -> bytes:
    """Return the outpoint that debug mode derives: txid = single SHA-256 of the payer's key, index = expiry mod 7."""
    return make_outpoint(hashlib.sha256(client_pubkey).digest(), exp_time % 7)


class DebugChain(OutboxChain):
    """Funding out of thin air, settlements into files."""

    async def find_funding(self, request: FundingRequest) -> list[FundingOutput]:
        outpoint = debug_outpoint(request.client_pubkey, request.exp_time)
        if request.outpoint not in (None, outpoint):
            return []
        return [FundingOutput(outpoint, DEBUG_FUNDING_VALUE, DEBUG_CONFIRMATIONS)]

    async def funding_transaction(self, terms: ChannelTerms) -> bytes:
        return b""
