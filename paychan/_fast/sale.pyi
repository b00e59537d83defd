import asyncio
from collections.abc import Callable

from paychan.server.protocol.replies import Reply

from .intake import Intake, PaymentRequest

SALES_SLICE: int

def read_charges(body: bytes) -> list[bytes] | None: ...

class SaleRequest(PaymentRequest): ...

class FutureSale(SaleRequest):
    def __init__(self, intake: Intake, raw: bytes, future: asyncio.Future[Reply]) -> None: ...

class BatchSale(SaleRequest): ...

class SaleBatch:
    def __init__(
        self, raws: list[bytes], done: Callable[[list[bytes]], object], later: Callable[[Callable[[], None]], object]
    ) -> None: ...
    def submit(self, intake: Intake) -> None: ...
