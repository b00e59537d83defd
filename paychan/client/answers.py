"""Reading the server's answers, strictly: whatever is not exactly v1 is misbehaviour, never a guess."""

import json
import re
from dataclasses import dataclass

from ..core.errors import BY_CODE
from ..core.payment import Payment
from ..core.units import is_satoshi
from .errors import ServerMisbehaved, printable
from .wire import Reply

ANSWER_SIZE_MAX = 4096
"""Bytes of a body that is looked at."""

_TXID = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Result:
    """A checked PaymentResult. `claimed_received` (satoshi) is what the server says this request added: a claim, no more."""

    is_closed: bool
    claimed_received: int
    settlement_txid: str


def read_object(reply: Reply) -> dict[str, object]:
    """Return the JSON object that an answer is. Raises ServerMisbehaved for anything else."""
    if len(reply.body) > ANSWER_SIZE_MAX:
        raise ServerMisbehaved(f"the server's answer {reply.status} is too long")
    try:
        content = json.loads(reply.body)
    except (ValueError, RecursionError) as error:
        raise ServerMisbehaved(f"the server's answer {reply.status} is no JSON") from error
    if not isinstance(content, dict):
        raise ServerMisbehaved(f"the server's answer {reply.status} is no JSON object")
    return content


def read_problem(reply: Reply) -> tuple[str, str]:
    """Return (code, detail) of a refusal; the code is "" if it has none that we know. The text is shown, not believed."""
    if not 400 <= reply.status < 500:
        raise ServerMisbehaved(f"the server answers {reply.status}, which this request never has")
    try:
        content = read_object(reply)
    except ServerMisbehaved:
        content = {}
    code, detail = content.get("code"), content.get("detail")
    code = code if isinstance(code, str) and code in BY_CODE else ""
    text = detail if isinstance(detail, str) else ""
    return code, printable(text[:200]) or f"the server answers {reply.status}"


def check_result(reply: Reply, payment: Payment) -> Result:
    """Return a success answer that agrees with `payment`, the one it is about. Raises ServerMisbehaved for any other."""
    content = read_object(reply)
    left = content.get("channel_value_left")
    received = content.get("value_received")
    status, txid = content.get("channel_status"), content.get("settlement_txid")
    if not is_satoshi(left) or not is_satoshi(received):
        raise ServerMisbehaved("the server's answer lacks channel_value_left or value_received")
    if left != payment.change_value:
        raise ServerMisbehaved(f"the server claims {left} satoshi are left in the channel, signed were {payment.change_value}")
    if status == "open" and txid is None and reply.status in (200, 201):
        return Result(False, received, "")
    if status == "closed" and isinstance(txid, str) and _TXID.match(txid) and reply.status == 202:
        return Result(True, received, txid)
    raise ServerMisbehaved("the server's answer contradicts itself about the channel's status")
