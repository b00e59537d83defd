"""What a source hands over as a funding transaction, made into the proof that the signer takes: without witness, off the event loop
where it is large."""

import asyncio

from ..core.funding import WHOLE_SIZE_MAX, without_witness

TRANSACTION_HEX_MAX = 2 * WHOLE_SIZE_MAX + 2
"""Bytes of a transaction in hexadecimal, with the end of its line: all that consensus allows, witness and all."""

THREAD_SIZE_MIN = 100_000
"""Bytes of hexadecimal. To walk over more takes a millisecond, and over the largest ten, for which other work need not wait."""


async def proof_of(text: str, txid: bytes) -> bytes:
    """Return a transaction, given in hexadecimal, without its witness. Raises ValueError for another one than `txid`, or none."""
    if len(text) < THREAD_SIZE_MIN:
        return _read(text, txid)
    return await asyncio.to_thread(_read, text, txid)


def _read(text: str, txid: bytes) -> bytes:
    return without_witness(bytes.fromhex(text), txid)
