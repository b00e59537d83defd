from collections.abc import Iterable
from typing import Self

from . import CTransaction

SIGHASH_ALL: int
SIGVERSION_BASE: int

class CScript(bytes):
    def __new__(cls, value: bytes | Iterable[bytes | int] = b"") -> Self: ...

def SignatureHash(
    script: CScript, txTo: CTransaction, inIdx: int, hashtype: int, amount: int | None = None, sigversion: int = ...
) -> bytes: ...
