"""`Payment-Session-Snapshot`: what a payer that lost its state is told once it has proved its key (section 2.6)."""

from dataclasses import dataclass
from typing import Any

from ..core.payment import Payment, decode_payment
from ..core.units import is_expiry
from . import CHANNEL_TYPE
from .text import decode_json, encode_bytes, encode_json, format_amount, format_channel_id, parse_amount, parse_channel_id

HEADER = "Payment-Session-Snapshot"
SNAPSHOT_CHARACTERS_MAX = 8192


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A channel as the server knows it. chain: CAIP-2. client_pubkey: 33 bytes. Satoshi: deposit (funding value), accepted, spent,
    and required: what the channel must have received for the request that was refused. payment: the newest. Before it is used, it
    must be verified to be the payer's own, and nothing else of a snapshot is a reason to sign.
    """

    outpoint: bytes
    chain: str
    client_pubkey: bytes
    exp_time: int
    change_address: str
    deposit: int
    accepted: int
    spent: int
    required: int
    payment: Payment

    def encode(self) -> str:
        """Return the header's value. It closes the channel: it belongs into no log."""
        content: dict[str, Any] = {
            "channelId": format_channel_id(self.outpoint),
            "chain": self.chain,
            "channelType": CHANNEL_TYPE,
            "clientPubkey": self.client_pubkey.hex(),
            "expTime": self.exp_time,
            "changeAddress": self.change_address,
            "deposit": format_amount(self.deposit),
            "acceptedCumulative": format_amount(self.accepted),
            "spent": format_amount(self.spent),
            "requiredCumulative": format_amount(self.required),
            "payment": encode_bytes(self.payment.serialize()),
        }
        return encode_json(content)


def parse_snapshot(text: str) -> Snapshot:
    """Return the snapshot in a header's value. Raises ValueError. Its payment is well-formed; whose it is, the payer verifies."""
    if len(text) > SNAPSHOT_CHARACTERS_MAX:
        raise ValueError("the snapshot is too long")
    content = decode_json(text)
    if content.get("channelType") != CHANNEL_TYPE or not is_expiry(content.get("expTime")):
        raise ValueError("the snapshot makes no sense")
    try:
        snapshot = Snapshot(
            outpoint=parse_channel_id(content.get("channelId")),
            chain=str(content["chain"]),
            client_pubkey=bytes.fromhex(content["clientPubkey"]),
            exp_time=content["expTime"],
            change_address=str(content["changeAddress"]),
            deposit=parse_amount(content.get("deposit")),
            accepted=parse_amount(content.get("acceptedCumulative")),
            spent=parse_amount(content.get("spent")),
            required=parse_amount(content.get("requiredCumulative")),
            payment=decode_payment(content["payment"]),
        )
    except Exception as error:
        raise ValueError("the snapshot makes no sense") from error
    if snapshot.accepted != snapshot.deposit - snapshot.payment.change_value or snapshot.spent > snapshot.accepted:
        raise ValueError("the snapshot contradicts itself")
    return snapshot
