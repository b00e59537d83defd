from collections.abc import Mapping
from typing import Any

class Fit: ...

class Plain:
    key: str
    outpoint: bytes
    payment: bytes
    challenge_id: str
    charge: bytes
    asked_at: float

class Lane:
    def __init__(self, standings: Mapping[bytes, Any]) -> None: ...
    def forget(self) -> None: ...
    def learn(
        self, credential: str, price: object, shop: bytes, challenge_id: str, until: int, cost: int, prepay: int
    ) -> None: ...
    def recognize(
        self, credential: str, price: object, shop: bytes, method: str, target: str, named: bytes, now: int
    ) -> Plain | None: ...

def read_sold(body: bytes, count: int) -> list[tuple[int, int, int, int]] | None: ...
