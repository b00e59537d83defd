from collections.abc import Callable
from typing import Any

from .intake import Intake, PaymentRequest

PIPELINED_MAX: int
PENDING_BYTES_MAX: int
LENGTH_REQUIRED: int

class DirectRequest(PaymentRequest):
    host: bytes
    is_last: bool
    wants_no_body: bool

class DirectDoor:
    intake: Intake | None
    connections: set[DirectConnection]
    def __init__(
        self,
        *,
        answer: Callable[[DirectRequest, str, str, str, bytes], None],
        render: Callable[[Any, DirectRequest], bytes],
        refusal: Callable[[int], Any],
        unquote: Callable[[str], str],
        paid_head: Callable[[float], bytes],
        batch_path: bytes,
        body_max: int,
        connections_max: int,
    ) -> None: ...
    def connect(self) -> DirectConnection: ...
    def sweep(self, silent_ticks_max: int) -> None: ...

class DirectConnection:
    def __init__(self, door: DirectDoor) -> None: ...
    def connection_made(self, transport: Any) -> None: ...
    def connection_lost(self, _: Exception | None) -> None: ...
    def eof_received(self) -> bool: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...
    def data_received(self, data: bytes) -> None: ...
