from collections.abc import Callable

from .intake import Intake, PaymentRequest

BATCH_PAYMENTS_MAX: int
BATCH_BYTES_MAX: int
BATCH_FAILURES_MAX: int
BATCH_SLICE: int

class BatchPayment(PaymentRequest): ...

class Batch:
    def __init__(
        self,
        body: bytes,
        to_text: Callable[[bytes], str],
        done: Callable[[bytes], object],
        later: Callable[[Callable[[], None]], object],
        address: int = 0,
    ) -> None: ...
    def submit(self, intake: Intake) -> None: ...
