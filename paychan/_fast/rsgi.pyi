from collections.abc import Callable
from typing import Any

from .intake import Intake, PaymentRequest

class RsgiRequest(PaymentRequest): ...

class RsgiDoor:
    intake: Intake | None
    def __init__(
        self,
        call_soon_threadsafe: Callable[..., Any],
        usual: Callable[[Any], object],
        respond: Callable[[Any, Any, Any], None],
        paid_headers: list[tuple[str, str]],
        address_of: Callable[[Any], int],
    ) -> None: ...
    def schedule(self, watcher: Any) -> None: ...

def has_body(headers: Any) -> bool: ...
