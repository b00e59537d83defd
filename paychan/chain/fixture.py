"""The fixture backend: funding outputs come from a JSON file, which may change while the server runs; settlements go to files.

The file: {"outputs": [{"txid": HEX, "vout": N, "value": SATOSHI, "script_pubkey": HEX, "confirmations": N,
"transaction": HEX (optional: the funding transaction, for signers that want proof)}]}. Replace it by renaming a new one.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from ..core.channel import ChannelTerms
from ..core.errors import Rejection, Unavailable
from ..core.funding import without_witness
from ..core.outpoint import parse_outpoint, txid_of
from ..core.script import p2sh_script_pubkey
from ..core.units import check_satoshi
from .base import FUNDING_OUTPUTS_MAX, FundingOutput, FundingRequest
from .outbox import OutboxChain


@dataclass(frozen=True)
class _Known:
    output: FundingOutput
    script_pubkey: bytes
    transaction: bytes


def _parse(text: str) -> list[_Known]:
    """Raises ValueError, KeyError, TypeError, RecursionError or Rejection for anything but the documented form."""
    known = []
    for item in json.loads(text)["outputs"]:
        outpoint = parse_outpoint(item["txid"], str(item["vout"]))
        confirmations = item.get("confirmations", 0)
        if type(confirmations) is not int or confirmations < 0:
            raise ValueError("confirmations must be a count")
        output = FundingOutput(outpoint, check_satoshi(item["value"], "value"), confirmations)
        known.append(_Known(output, bytes.fromhex(item["script_pubkey"]), bytes.fromhex(item.get("transaction", ""))))
    return known


class FixtureChain(OutboxChain):
    """Funding as a file tells it, settlements into files."""

    def __init__(self, state_dir: Path, fee_per_byte: int, fixture_file: Path) -> None:
        super().__init__(state_dir, fee_per_byte)
        self._file = fixture_file
        self._stamp: tuple[int, int, int] | None = None
        self._known: list[_Known] = []

    async def find_funding(self, request: FundingRequest) -> list[FundingOutput]:
        fitting = [
            known.output
            for known in self._read()
            if known.script_pubkey == request.script_pubkey and request.outpoint in (None, known.output.outpoint)
        ]
        return fitting[:FUNDING_OUTPUTS_MAX]

    async def funding_transaction(self, terms: ChannelTerms) -> bytes:
        script_pubkey = p2sh_script_pubkey(terms.redeem_script)
        for known in self._read():
            if known.output.outpoint == terms.outpoint and known.script_pubkey == script_pubkey:
                return self._proof(known)
        return b""

    def _proof(self, known: _Known) -> bytes:
        try:
            return known.transaction and without_witness(known.transaction, txid_of(known.output.outpoint))
        except ValueError as error:
            raise Unavailable("chain_unavailable", "The file of funding outputs has another transaction for an output") from error

    def _read(self) -> list[_Known]:
        """Return the outputs, reading the file again if it was replaced or changed. A broken file: Unavailable."""
        try:
            status = self._file.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp != self._stamp:
                self._known = _parse(self._file.read_text())
                self._stamp = stamp
        except (OSError, ValueError, KeyError, TypeError, RecursionError, Rejection) as error:
            raise Unavailable("chain_unavailable", "The file of funding outputs cannot be read") from error
        return self._known
