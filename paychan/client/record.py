"""What a payer must remember about a channel, and its JSON form. No files and no signing here.

The JSON is on disk: a change of meaning takes a new `version`. Everything in it can be checked against the rest: an edited or
damaged record is refused when it is read.
"""

import json
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from coincurve import PublicKey

from ..core.channel import ChannelTerms
from ..core.errors import Rejection
from ..core.network import BY_NAME, Network, decode_address
from ..core.outpoint import format_outpoint, parse_outpoint
from ..core.payment import Payment, decode_payment
from ..core.script import funding_address, p2sh_script_pubkey, redeem_script
from ..core.settlement import verify_payment
from ..core.units import MAX_MONEY, check_satoshi, is_expiry
from .errors import HOLDING, Refused, StateError
from .wire import parse_url

VERSION = 1
HOURS_MAX = 1000
CONFIRMATIONS_MAX = 1000
Kind = TypeVar("Kind")
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
        return self.terms_on(self.funding)

    def terms_on(self, funding: Funding) -> ChannelTerms:
        """Return what the terms would be on an output at the channel's address."""
        agreed = self.agreement
        return ChannelTerms(
            funding.outpoint,
            agreed.server_pubkey,
            agreed.client_pubkey,
            agreed.exp_time,
            funding.value,
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


def _payment_json(payment: Payment | None) -> dict[str, object] | None:
    return {"change_value": payment.change_value, "payment": payment.encode()} if payment else None


def parse_record(raw: bytes) -> ChannelRecord:
    """Return the record in `raw`, with every derived part and signature checked. Raises StateError."""
    try:
        content: object = json.loads(raw)
        version = _field(content, "version", int)
        if version != VERSION:
            raise StateError(f"the state file has version {version}, known is {VERSION}")
        record = _record(content)
        _check(record, content)
    except StateError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, Rejection, Refused) as error:
        raise StateError(f"the state file is damaged: {type(error).__name__}") from error
    return record


def _field(content: object, name: str, kind: type[Kind]) -> Kind:
    """Return a field that must be there, and of this type. Raises StateError."""
    value = content.get(name) if isinstance(content, dict) else None
    if type(value) is not kind:
        raise StateError(f"the state file is damaged: {name}")
    return value


def _part(content: object, name: str) -> object:
    """Return what may be null, else must be an object. Raises StateError, KeyError."""
    part = content[name] if isinstance(content, dict) else None
    return None if part is None else _field(content, name, dict)


def _number_or_none(content: object, name: str) -> int | None:
    """Return what may be null, and is not there in files of earlier versions. Raises StateError."""
    is_told = isinstance(content, dict) and content.get(name) is not None
    return _field(content, name, int) if is_told else None


def _record(content: object) -> ChannelRecord:
    agreed = Agreement(
        server_url=_field(content, "server_url", str),
        network=BY_NAME[_field(content, "network", str)],
        server_pubkey=bytes.fromhex(_field(content, "server_pubkey", str)),
        client_pubkey=bytes.fromhex(_field(content, "client_pubkey", str)),
        exp_time=_field(content, "exp_time", int),
        change_address=_field(content, "change_address", str),
        settlement_period_hours=_field(content, "settlement_period_hours", int),
        funding_tx_min_conf=_field(content, "funding_tx_min_conf", int),
        open_price=_field(content, "open_price", int),
        planned_value=_number_or_none(content, "planned_value"),
        confirmations_needed=_number_or_none(content, "confirmations_needed"),
        open_before=_number_or_none(content, "open_before"),
    )
    hold = _part(content, "hold")
    return ChannelRecord(
        agreement=agreed,
        key_file=_field(content, "key_file", str),
        phase=PayerPhase(_field(content, "phase", str)),
        funding=_funding(_part(content, "funding")),
        signed=_payment(_part(content, "signed")),
        acknowledged=_payment(_part(content, "acknowledged")),
        hold=None if hold is None else Hold(_field(hold, "code", str), _field(hold, "detail", str)),
        settlement_txid=_field(content, "settlement_txid", str),
    )


def _funding(part: object) -> Funding | None:
    if part is None:
        return None
    txid, _, vout = _field(part, "outpoint", str).partition("/")
    return Funding(parse_outpoint(txid, vout), _field(part, "value", int))


def _payment(part: object) -> Payment | None:
    """Return the payment, which says twice what it leaves."""
    if part is None:
        return None
    payment = decode_payment(_field(part, "payment", str))
    _require(payment.change_value == _field(part, "change_value", int), "change_value")
    return payment


def _check(record: ChannelRecord, content: object) -> None:
    agreed = record.agreement
    PublicKey(agreed.server_pubkey), PublicKey(agreed.client_pubkey)
    check_satoshi(agreed.open_price, "open_price")
    _require(is_expiry(agreed.exp_time), "exp_time")
    _require(0 <= agreed.settlement_period_hours <= HOURS_MAX, "settlement_period_hours")
    _require(0 <= agreed.funding_tx_min_conf <= CONFIRMATIONS_MAX, "funding_tx_min_conf")
    _require(0 <= (agreed.planned_value or 0) <= MAX_MONEY, "planned_value")
    _require(0 <= (agreed.confirmations_needed or 0) <= CONFIRMATIONS_MAX, "confirmations_needed")
    _require(0 <= (agreed.open_before or 0) <= agreed.exp_time, "open_before")
    parse_url(agreed.server_url)
    _require(agreed.change_script, "change_address")
    _require(b"\0" not in record.key_file.encode(errors="surrogateescape"), "key_file")
    _require(_field(content, "funding_address", str) == agreed.funding_address, "funding_address")
    _require(_field(content, "redeem_script", str) == agreed.redeem_script.hex(), "redeem_script")
    _require(record.hold is None or record.hold.code in HOLDING, "hold")
    _require(record.settlement_txid == "" or _TXID.match(record.settlement_txid), "settlement_txid")
    _require((record.phase is PayerPhase.FUNDING) == (record.signed is None), "phase")
    _require(record.phase is not PayerPhase.OPEN or record.acknowledged is not None, "acknowledged")
    if record.funding is not None:
        check_satoshi(record.funding.value, "funding value")
    above = record.funding.value if record.funding else 0
    for name, payment in (("acknowledged", record.acknowledged), ("signed", record.signed)):
        if payment is not None:
            _require(payment.change_value <= above, name)
            _require(verify_payment(record.terms, payment), f"{name}: the signature")
            above = payment.change_value


def _require(is_right: object, what: str) -> None:
    if not is_right:
        raise StateError(f"the state file is damaged: {what}")
