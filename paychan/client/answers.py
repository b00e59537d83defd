"""Reading the server's answers, strictly: whatever is not exactly v1 is misbehaviour, never a guess."""

import json
import re
from dataclasses import dataclass

from coincurve import PublicKey

from ..core.errors import BY_CODE
from ..core.network import Network
from ..core.payment import Payment
from ..core.script import PUBKEY_SIZE
from ..core.units import is_satoshi
from .errors import ServerMisbehaved
from .record import Agreement
from .wire import Reply

ANSWER_SIZE_MAX = 4096
"""Bytes of a body that is looked at."""

_TXID = re.compile(r"[0-9a-f]{64}\Z")
_HOURS_MAX = 1000
_CONFIRMATIONS_MAX = 1000


@dataclass(frozen=True)
class Result:
    """A checked PaymentResult. `claimed_received` (satoshi) is what the server says this request added: a claim, no more."""

    is_closed: bool
    claimed_received: int
    settlement_txid: str


def _object(reply: Reply) -> dict[str, object]:
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
        content = _object(reply)
    except ServerMisbehaved:
        content = {}
    code, detail = content.get("code"), content.get("detail")
    code = code if isinstance(code, str) and code in BY_CODE else ""
    text = detail if isinstance(detail, str) else ""
    printable = "".join(character if character.isprintable() else "?" for character in text[:200])
    return code, printable or f"the server answers {reply.status}"


def check_result(reply: Reply, payment: Payment) -> Result:
    """Return a success answer that agrees with `payment`, the one it is about. Raises ServerMisbehaved for any other."""
    content = _object(reply)
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


def check_funding_info(
    reply: Reply, server_url: str, network: Network, client_pubkey: bytes, exp_time: int, change_address: str
) -> Agreement:
    """Return what FundingInfo offers, its address derived here. Raises ServerMisbehaved if the server's differs."""
    content = _object(reply)
    price = content.get("open_price")
    hours, confirmations = content.get("settlement_period_hours"), content.get("funding_tx_min_conf")
    if type(hours) is not int or not 0 <= hours <= _HOURS_MAX:
        raise ServerMisbehaved("the server's settlement_period_hours makes no sense")
    if type(confirmations) is not int or not 0 <= confirmations <= _CONFIRMATIONS_MAX:
        raise ServerMisbehaved("the server's funding_tx_min_conf makes no sense")
    if not is_satoshi(price):
        raise ServerMisbehaved("the server's open_price is no amount")
    server_pubkey = _server_key(content.get("server_pubkey"))
    if server_pubkey == client_pubkey:
        raise ServerMisbehaved("the server claims our own key")
    agreed = Agreement(server_url, network, server_pubkey, client_pubkey, exp_time, change_address, hours, confirmations, price)
    if content.get("funding_address_copy") != agreed.funding_address:
        raise ServerMisbehaved("the server's funding_address_copy is not the channel's address (or of another network)")
    return agreed


def _server_key(text: object) -> bytes:
    try:
        key = bytes.fromhex(text) if isinstance(text, str) and len(text) == 2 * PUBKEY_SIZE else b""
        PublicKey(key)
    except ValueError as error:
        raise ServerMisbehaved("the server's key is no public key") from error
    return key
