"""What a till is told, and what it answers. Who puts a till before something (a middleware, a gateway) need know no more:

    decision = await till.decide(request, price)     # a Request and a Price
    if isinstance(decision, Answer):                  # 402, 503, 409, 204, or an answer that was kept from before: send it as it is
        ...
    else:                                             # a Sale: it is paid, and on disk. Serve it, and then
        more = await till.finish(decision, status)    # once the status is known and before anything of the answer is sent;
        ...                                           # `more` are the headers to send with it (the receipt, cache-control);
        ...                                           # or an Answer: send that instead, and call neither keep nor forget
        till.keep(decision, Answer(status, headers, body))  # the whole answer, the receipt among its headers: for who asks again
        till.forget(decision)                         # or this, if the answer is longer than KEPT_BYTES_MAX, or a stream broke off
        await till.failed(decision)                   # or only this, if there is no answer: the handler failed before it began to

Only an answer of status 2xx costs something: `finish` with another status, and `failed`, give the charge back as credit, durably.
After `finish` with 2xx exactly one of `keep` and `forget` must be called: who sends the same payment again waits for it.
HEAD with a credential manages a channel, and `close` ends one: `decide` answers both, with whatever price. A request of which no
price is known yet, and that might be one of them, may be shown to `manage`, which returns an Answer or None.

`till.Till` is for asyncio, `blocking.Till` the same for threads, without `await`.
"""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..core.sales import revision_of
from ..mpp.text import format_channel_id
from ..receipts.claims import Bought

KEPT_BYTES_MAX = 64 * 1024
"""Of an answer's body, for it to be kept for who asks again."""

BODY_BYTES_MAX = 1 << 20
"""Of a request's body that is hashed as a whole before anything is charged. A longer one needs an Idempotency-Key."""

Headers = tuple[tuple[str, str], ...]


class Request(NamedTuple):
    """What must be known of an HTTP request. method: in upper case. target: path and query, as they came; where several hosts are
    served, with the host before them. credentials: the values
    of Authorization and of Payment-Authorization. body: the SHA-256 of its body, empty for none; None: it is longer than
    BODY_BYTES_MAX.
    """

    method: str
    target: str
    credentials: tuple[str, ...] = ()
    body: bytes | None = b""
    idempotency_key: str = ""

    @property
    def fingerprint(self) -> bytes:
        """What makes this request another one than the next: its method, its target, and its body or the key that stands for it."""
        method, target = self.method.encode(), self.target.encode("utf-8", "surrogateescape")
        named = self.idempotency_key.encode("utf-8", "surrogateescape") or self.body or b""
        return b"%d %b\n%d %b\n%d %b" % (len(method), method, len(target), target, len(named), named)


def body_hash(body: bytes) -> bytes:
    """Return what a Request has of a body."""
    return hashlib.sha256(body).digest() if body else b""


@dataclass(frozen=True, slots=True)
class Price:
    """What a request costs. amount: satoshi a unit. units: so many are charged; with `is_metered` they are held at first, and what
    was not used is given back. unit: what one is called. repeats: whether the request may be run again for who has paid, and whose
    answer was not kept; None: GET only."""

    amount: int
    units: int = 1
    unit: str = "request"
    description: str = ""
    is_metered: bool = False
    repeats: bool | None = None

    def __post_init__(self) -> None:
        if type(self.amount) is not int or type(self.units) is not int or self.amount < 1 or self.units < 1:
            raise ValueError("a price is a whole number of satoshi, at least 1")

    @property
    def cost(self) -> int:
        """Satoshi that are charged, or held, before the request is served."""
        return self.amount * self.units


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to be sent. `body`: empty for HEAD and 204; Content-Length is the sender's business."""

    status: int
    headers: Headers = ()
    body: bytes = b""


@dataclass(slots=True)
class Standing:
    """A channel as it was seen last. Satoshi."""

    funding_value: int
    received: int
    spent: int


@dataclass(slots=True)
class Sale:
    """A purchase that was charged for and is to be served. outpoint: 36 bytes. key: the purchase's, number: as the door told it.
    is_repeated: it was bought, and maybe served, before; then it is not given back. is_open: its amount is not final yet. used:
    units, of a metered one. payment: in binary form. name: the number that the purchase had before it was taken over from another
    process; 0: it was not. is_stream: what it costs is known at its end, and so is its signed receipt."""

    request: Request
    price: Price
    outpoint: bytes
    key: str
    number: int
    challenge_id: str
    standing: Standing
    is_repeated: bool = False
    is_stream: bool = False
    is_open: bool = False
    used: int | None = None
    payment: bytes = b""
    name: int = 0

    def use(self, units: int) -> None:
        """Say how many of the units that are held were used. Raises ValueError if that is more."""
        if type(units) is not int or not 0 <= units <= self.price.units:
            raise ValueError(f"from 0 to {self.price.units} units can be used")
        self.used = units

    @property
    def units(self) -> int:
        """The units that it comes to."""
        return self.price.units if self.used is None else self.used

    @property
    def bought(self) -> Bought:
        """What a signed receipt says of it: the same, whoever signs it."""
        body = self.request.body
        return Bought(
            channel_id=format_channel_id(self.outpoint),
            number=revision_of(self.name or self.number),
            method=self.request.method,
            resource=self.request.target,
            amount=self.price.amount * self.units,
            accepted=self.standing.received,
            spent=self.standing.spent,
            body=f"sha-256=:{base64.b64encode(body).decode()}:" if body else "",
            payment=self.payment,
        )


Sign = Callable[[Bought], str]
"""Makes a signed receipt: `paychan.receipts.issuer.Issuer.issue` is one. It may block."""

Decision = Answer | Sale
