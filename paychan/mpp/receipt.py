"""`Payment-Receipt`: what was accepted and charged (section 2.4). It is information for the payer, never a reason to sign."""

import re
from dataclasses import dataclass
from typing import Any

from .._fast.scheme import receipt_text
from ..core.units import MAX_MONEY
from . import INTENT, METHOD
from .challenge import format_time, parse_time
from .text import decode_json, encode_json, format_amount, format_channel_id, parse_amount, parse_channel_id

HEADER = "Payment-Receipt"
RECEIPT_CHARACTERS_MAX = 8192
_IS_PLAIN = re.compile(r"[A-Za-z0-9_-]{0,256}\Z").match


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a channel stands at after a purchase. outpoint: 36 bytes. timestamp: unix seconds. accepted: the newest payment's
    cumulative; spent, remaining, deposit: the channel's; all in satoshi. units: bought with this request. settlement_txid: of a
    channel that this request closed, as displayed. jws: a signed receipt of this purchase, if the seller signs some.
    """

    outpoint: bytes
    challenge_id: str
    timestamp: int
    accepted: int
    spent: int
    deposit: int
    units: int = 0
    settlement_txid: str = ""
    jws: str = ""

    @property
    def remaining(self) -> int:
        """The credit: satoshi that were paid and not spent yet."""
        return self.accepted - self.spent

    def as_object(self) -> dict[str, Any]:
        """Return the JSON object."""
        channel = format_channel_id(self.outpoint)
        content: dict[str, Any] = {
            "status": "success",
            "method": METHOD,
            "intent": INTENT,
            "timestamp": format_time(self.timestamp),
            "reference": channel,
            "channelId": channel,
            "challengeId": self.challenge_id,
            "acceptedCumulative": format_amount(self.accepted),
            "spent": format_amount(self.spent),
            "remaining": format_amount(self.remaining),
            "deposit": format_amount(self.deposit),
            "units": self.units,
        }
        if self.jws:
            content["jws"] = self.jws
        if self.settlement_txid:
            content |= {"final": True, "settlementRef": self.settlement_txid, "txHash": self.settlement_txid}
        return content

    def encode(self) -> str:
        """Return the header's value: what `encode_json` makes of the object, quicker, for one goes with each answer."""
        if self.jws or self.settlement_txid:
            return encode_json(self.as_object())
        text = encode_plain(self.outpoint, self.challenge_id, self.timestamp, self.accepted, self.spent, self.deposit, self.units)
        return encode_json(self.as_object()) if text is None else text


def encode_plain(
    outpoint: bytes, challenge_id: str, timestamp: int, accepted: int, spent: int, deposit: int, units: int
) -> str | None:
    """Return the header's value of a receipt with these members and no others, None if it is out of the ordinary."""
    if not 0 <= spent <= accepted <= MAX_MONEY or not 0 <= deposit <= MAX_MONEY or not 0 <= units <= MAX_MONEY:
        return None
    if not _IS_PLAIN(challenge_id):
        return None
    return receipt_text(outpoint, challenge_id, format_time(timestamp), accepted, spent, deposit, units)


def parse_receipt(text: str) -> Receipt:
    """Return a receipt of this method. Raises ValueError, for one of another method too."""
    if len(text) > RECEIPT_CHARACTERS_MAX:
        raise ValueError("the receipt is too long")
    return read_receipt(decode_json(text))


def read_receipt(content: dict[str, Any]) -> Receipt:
    """Return the receipt in a JSON object. Raises ValueError."""
    if (content.get("status"), content.get("method")) != ("success", METHOD):
        raise ValueError("no receipt of this method")
    units, txid, jws = content.get("units", 0), content.get("settlementRef", ""), content.get("jws", "")
    if type(units) is not int or units < 0 or not isinstance(txid, str) or not isinstance(jws, str):
        raise ValueError("the receipt makes no sense")
    try:
        receipt = Receipt(
            outpoint=parse_channel_id(content.get("channelId")),
            challenge_id=str(content.get("challengeId", "")),
            timestamp=parse_time(str(content.get("timestamp"))),
            accepted=parse_amount(content.get("acceptedCumulative")),
            spent=parse_amount(content.get("spent")),
            deposit=parse_amount(content.get("deposit")),
            units=units,
            settlement_txid=txid,
            jws=jws,
        )
    except Exception as error:
        raise ValueError("the receipt makes no sense") from error
    if not receipt.spent <= receipt.accepted <= receipt.deposit:
        raise ValueError("the receipt makes no sense")
    return receipt
