"""What a paid stream of server-sent events says about money (section 2.8)."""

import json
from dataclasses import dataclass
from typing import Any

from .receipt import Receipt
from .text import canonical_json, format_amount, format_channel_id, parse_amount, parse_channel_id

NEED_VOUCHER = "payment-need-voucher"
RECEIPT = "payment-receipt"
ERROR = "payment-error"
PAUSE_SECONDS_MAX = 60
"""So long a stream waits for a voucher before it ends."""


@dataclass(frozen=True, slots=True)
class NeedVoucher:
    """The stream pauses until the channel has received `required` satoshi in all. outpoint: 36 bytes."""

    outpoint: bytes
    required: int
    accepted: int
    deposit: int

    def render(self) -> bytes:
        """Return the event."""
        content = {
            "channelId": format_channel_id(self.outpoint),
            "requiredCumulative": format_amount(self.required),
            "acceptedCumulative": format_amount(self.accepted),
            "deposit": format_amount(self.deposit),
        }
        return event(NEED_VOUCHER, content)


def render_receipt(receipt: Receipt) -> bytes:
    """Return the event that a paid stream ends with."""
    return event(RECEIPT, receipt.as_object())


def render_error(problem: dict[str, Any]) -> bytes:
    """Return the event of a stream that ends because it cannot be paid any more. problem: the document."""
    return event(ERROR, problem)


def event(name: str, content: dict[str, Any]) -> bytes:
    """Return one event with JSON as its data."""
    return f"event: {name}\ndata: {canonical_json(content)}\n\n".encode()


def parse_need_voucher(data: str) -> NeedVoucher:
    """Return what the event's data says. Raises ValueError."""
    try:
        content = json.loads(data)
        return NeedVoucher(
            parse_channel_id(content.get("channelId")),
            parse_amount(content.get("requiredCumulative")),
            parse_amount(content.get("acceptedCumulative")),
            parse_amount(content.get("deposit")),
        )
    except Exception as error:
        raise ValueError("the event makes no sense") from error
