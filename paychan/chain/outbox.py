"""What backends without a network have in common: each broadcast transaction becomes a file, and counts as confirmed; the fee is
fixed; the tip never moves, and is never old."""

import os
from pathlib import Path

from ..core.channel import ChannelTerms
from ..core.outpoint import txid_hex
from ..core.settlement import settlement_txid
from ..core.units import LOCKTIME_MAX
from ..durable import sync_directory
from .base import FundingStatus, Spender, Tip

CONFIRMATIONS = 1_000_000
"""What a written transaction is taken to have: no block will ever bury it."""


class OutboxChain:
    """Writes transactions as `broadcast/TXID.hex` below the state directory (hex and a newline). fee_per_byte: satoshi."""

    def __init__(self, state_dir: Path, fee_per_byte: int) -> None:
        self._directory = state_dir / "broadcast"
        self._fee_per_byte = fee_per_byte

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to close."""

    async def tip(self) -> Tip:
        return Tip(height=0, block_hash=bytes(32), time=LOCKTIME_MAX, median_time_past=0)

    async def funding_status(self, terms: ChannelTerms, settlement_txid: bytes = b"") -> FundingStatus:
        if settlement_txid and self._path(settlement_txid).exists():
            return FundingStatus(CONFIRMATIONS, True, settlement_txid, CONFIRMATIONS)
        return FundingStatus(CONFIRMATIONS)

    async def fee_per_byte(self, blocks: int) -> int | None:
        return self._fee_per_byte

    async def spender(self, txid: bytes) -> Spender:
        return Spender()

    async def relay_fee_per_kb(self) -> int | None:
        return None

    async def broadcast(self, transaction: bytes) -> None:
        """Write a transaction durably: synced before it is renamed to its name."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(settlement_txid(transaction))
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with open(temporary, "w") as file:
            file.write(transaction.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(self._directory)

    def _path(self, txid: bytes) -> Path:
        return self._directory / f"{txid_hex(txid)}.hex"
