"""Broadcasting for backends without a network: each transaction becomes a file, and counts as confirmed."""

import os
from pathlib import Path

from ..outpoint import txid_hex
from ..settlement import settlement_txid
from .base import UNKNOWN

CONFIRMATIONS = 1_000_000
"""What a written transaction is taken to have: no block will ever bury it."""


class Outbox:
    """Writes transactions as `broadcast/TXID.hex` below the state directory (hex and a newline)."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "broadcast"

    def write(self, transaction: bytes) -> None:
        """Write a transaction durably: synced before it is renamed to its name."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(settlement_txid(transaction))
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with open(temporary, "w") as file:
            file.write(transaction.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def confirmations(self, txid: bytes) -> int:
        """Return CONFIRMATIONS for a transaction that was written, else UNKNOWN."""
        return CONFIRMATIONS if self._path(txid).exists() else UNKNOWN

    def _path(self, txid: bytes) -> Path:
        return self._directory / f"{txid_hex(txid)}.hex"
