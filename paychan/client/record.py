"""What a payer must remember about a channel, and its JSON form. No files and no signing here.

The JSON is on disk: a change of meaning takes a new `version`. Everything in it can be checked against the rest: an edited or
damaged record is refused when it is read.
"""

import json
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from coincurve import PublicKey

from ..core.channel import ChannelTerms
from ..core.errors import Rejection
from ..core.network import BY_NAME, Network, decode_address
from ..core.outpoint import format_outpoint, parse_outpoint
from ..core.payment import Payment, decode_payment
from ..core.script import funding_address, p2sh_script_pubkey, redeem_script
from ..core.settlement import verify_payment
from ..core.units import check_satoshi, is_expiry, is_satoshi
from .errors import HOLDING, Refused, StateError
from .wire import parse_url

VERSION = 1
HOURS_MAX = 1000
CONFIRMATIONS_MAX = 1000
_TXID = re.compile(r"[0-9a-f]{64}\Z")


class PayerPhase(StrEnum):
    """How far the payer has come."""

    FUNDING = "funding"
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


@dataclass(frozen=True)
class Agreement:
    """What payer and server agreed on before any money moved. Values in satoshi, `exp_time` in unix seconds.

    planned_value: what the payer said it would lock up, None if it did not say. confirmations_needed: what the server asks for
    that, None if it did not tell. open_before: unix seconds by the payer's clock; later the server does not open the channel.
    """

    server_url: str
    network: Network
    server_pubkey: bytes
    client_pubkey: bytes
    exp_time: int
    change_address: str
    settlement_period_hours: int
    funding_tx_min_conf: int
    open_price: int
    planned_value: int | None = None
    confirmations_needed: int | None = None
    open_before: int | None = None

    @property
    def confirmations(self) -> int:
        """How many blocks must confirm the funding output, as far as the server has told."""
        return self.funding_tx_min_conf if self.confirmations_needed is None else self.confirmations_needed

    @property
    def redeem_script(self) -> bytes:
        """The script that locks the funding output, derived here and never taken from the server."""
        return redeem_script(self.server_pubkey, self.client_pubkey, self.exp_time)

    @property
    def script_pubkey(self) -> bytes:
        return p2sh_script_pubkey(self.redeem_script)

    @property
    def funding_address(self) -> str:
        return funding_address(self.network, self.redeem_script)

    @property
    def change_script(self) -> bytes:
        return decode_address(self.network, self.change_address)


@dataclass(frozen=True)
class Funding:
    """The funding output: outpoint of 36 bytes, value in satoshi."""

    outpoint: bytes
    value: int


@dataclass(frozen=True)
class Hold:
    """Why nothing is signed on this channel: `code` is a key of `HOLDING`."""

    code: str
    detail: str


@dataclass
class ChannelRecord:
    """One channel. `signed`: the newest payment that was ever signed; `acknowledged`: the newest one the server confirmed.

    They differ only while a payment's outcome is unknown, or if a channel ended before it counted.
    """

    agreement: Agreement
    key_file: str
    phase: PayerPhase = PayerPhase.FUNDING
    funding: Funding | None = None
    signed: Payment | None = None
    acknowledged: Payment | None = None
    hold: Hold | None = field(default=None)
    settlement_txid: str = ""

    @property
    def terms(self) -> ChannelTerms:
        """The channel's terms. Raises Refused before it is funded."""
        if self.funding is None:
            raise Refused("the channel has no funding output yet", "not_funded")
        agreed = self.agreement
        return ChannelTerms(
            self.funding.outpoint,
            agreed.server_pubkey,
            agreed.client_pubkey,
            agreed.exp_time,
            self.funding.value,
            agreed.change_script,
        )

    @property
    def is_pending(self) -> bool:
        """Whether a signed payment's outcome is unknown."""
        return self.signed != self.acknowledged and self.phase is not PayerPhase.CLOSED

    @property
    def change_value(self) -> int:
        """Satoshi that return to the payer by the newest acknowledged payment; 0 before funding."""
        if self.acknowledged is not None:
            return self.acknowledged.change_value
        return self.funding.value if self.funding else 0

    @property
    def paid_value(self) -> int:
        """Satoshi that the server acknowledged, in total."""
        return (self.funding.value if self.funding else 0) - self.change_value

    @property
    def pending_value(self) -> int:
        """Satoshi of the payment whose outcome is unknown; 0 if there is none."""
        return self.change_value - self.signed.change_value if self.is_pending and self.signed else 0

    def serialize(self) -> bytes:
        """Return the JSON form."""
        agreed = self.agreement
        content = {
            "version": VERSION,
            "server_url": agreed.server_url,
            "network": agreed.network.name,
            "server_pubkey": agreed.server_pubkey.hex(),
            "client_pubkey": agreed.client_pubkey.hex(),
            "exp_time": agreed.exp_time,
            "change_address": agreed.change_address,
            "settlement_period_hours": agreed.settlement_period_hours,
            "funding_tx_min_conf": agreed.funding_tx_min_conf,
            "open_price": agreed.open_price,
            "planned_value": agreed.planned_value,
            "confirmations_needed": agreed.confirmations_needed,
            "open_before": agreed.open_before,
            "funding_address": agreed.funding_address,
            "redeem_script": agreed.redeem_script.hex(),
            "key_file": self.key_file,
            "phase": self.phase.value,
            "funding": self.funding and {"outpoint": format_outpoint(self.funding.outpoint), "value": self.funding.value},
            "signed": _payment_json(self.signed),
            "acknowledged": _payment_json(self.acknowledged),
            "hold": self.hold and {"code": self.hold.code, "detail": self.hold.detail},
            "settlement_txid": self.settlement_txid,
        }
        return json.dumps(content, indent=2).encode() + b"\n"


def _payment_json(payment: Payment | None) -> dict[str, Any] | None:
    return {"change_value": payment.change_value, "payment": payment.encode()} if payment else None


def parse_record(raw: bytes) -> ChannelRecord:
    """Return the record in `raw`, with every derived part and signature checked. Raises StateError."""
    try:
        content = json.loads(raw)
        if content["version"] != VERSION:
            raise StateError(f"the state file has version {content['version']}, known is {VERSION}")
        record = _record(content)
        _check(record, content)
    except StateError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, Rejection, Refused) as error:
        raise StateError(f"the state file is damaged: {type(error).__name__}") from error
    return record


def _record(content: dict[str, Any]) -> ChannelRecord:
    agreed = Agreement(
        server_url=content["server_url"],
        network=BY_NAME[content["network"]],
        server_pubkey=bytes.fromhex(content["server_pubkey"]),
        client_pubkey=bytes.fromhex(content["client_pubkey"]),
        exp_time=content["exp_time"],
        change_address=content["change_address"],
        settlement_period_hours=content["settlement_period_hours"],
        funding_tx_min_conf=content["funding_tx_min_conf"],
        open_price=content["open_price"],
        planned_value=content.get("planned_value"),  # files of earlier versions lack these three
        confirmations_needed=content.get("confirmations_needed"),
        open_before=content.get("open_before"),
    )
    funding, hold = content["funding"], content["hold"]
    return ChannelRecord(
        agreement=agreed,
        key_file=content["key_file"],
        phase=PayerPhase(content["phase"]),
        funding=funding and Funding(parse_outpoint(*funding["outpoint"].split("/")), funding["value"]),
        signed=content["signed"] and decode_payment(content["signed"]["payment"]),
        acknowledged=content["acknowledged"] and decode_payment(content["acknowledged"]["payment"]),
        hold=hold and Hold(hold["code"], hold["detail"]),
        settlement_txid=content["settlement_txid"],
    )


def _check(record: ChannelRecord, content: dict[str, Any]) -> None:
    agreed = record.agreement
    PublicKey(agreed.server_pubkey), PublicKey(agreed.client_pubkey)
    check_satoshi(agreed.open_price, "open_price")
    _require(is_expiry(agreed.exp_time), "exp_time")
    _require(_is_count(agreed.settlement_period_hours, HOURS_MAX), "settlement_period_hours")
    _require(_is_count(agreed.funding_tx_min_conf, CONFIRMATIONS_MAX), "funding_tx_min_conf")
    _require(agreed.planned_value is None or is_satoshi(agreed.planned_value), "planned_value")
    for name, most in (("confirmations_needed", CONFIRMATIONS_MAX), ("open_before", agreed.exp_time)):
        value = getattr(agreed, name)
        _require(value is None or _is_count(value, most), name)
    parse_url(agreed.server_url)
    _require(agreed.change_script, "change_address")
    _require(b"\0" not in record.key_file.encode(errors="surrogateescape"), "key_file")
    _require(content["funding_address"] == agreed.funding_address, "funding_address")
    _require(content["redeem_script"] == agreed.redeem_script.hex(), "redeem_script")
    _require(record.hold is None or record.hold.code in HOLDING, "hold")
    _require(record.settlement_txid == "" or _TXID.match(record.settlement_txid), "settlement_txid")
    _require((record.phase is PayerPhase.FUNDING) == (record.signed is None), "phase")
    _require(record.phase is not PayerPhase.OPEN or record.acknowledged is not None, "acknowledged")
    if record.funding is not None:
        check_satoshi(record.funding.value, "funding value")
    above = record.funding.value if record.funding else 0
    for name, payment in (("acknowledged", record.acknowledged), ("signed", record.signed)):
        if payment is not None:
            _require(payment.change_value == content[name]["change_value"] <= above, name)
            _require(verify_payment(record.terms, payment), f"{name}: the signature")
            above = payment.change_value


def _is_count(value: object, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _require(is_right: object, what: str) -> None:
    if not is_right:
        raise StateError(f"the state file is damaged: {what}")
