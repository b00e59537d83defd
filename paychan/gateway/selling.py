"""The till, in the gateway's words: what a route costs, and which statuses cost it."""

from ..core.errors import ConfigError
from ..core.outpoint import format_outpoint
from ..mpp.receipt import HEADER as RECEIPT
from ..sell import facts, wire
from ..sell.door import AsyncDoor
from ..sell.facts import KEPT_BYTES_MAX, Answer, Sale
from ..sell.rules import TERMS
from ..sell.till import Till
from .metering import Meter
from .models import Door, GatewayConfig, Price, Route
from .receipts import open_receipts
from .refusals import Headers
from .requests import Request

_PAID_STATUS, _UNPAID_STATUS = 200, 502


class Instead(Exception):
    """The till cannot say that what was served is paid for: this is to be sent instead, and nothing else."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class Selling:
    """What is sold here, and how it is charged. Without a seller's door nothing has a price."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._prices = {id(route): price_of(route, route.price) for route in config.routes if route.price is not None}
        self._till: Till | None = None
        self._probe: AsyncDoor | None = None
        sign, self.published = open_receipts(config)
        if config.door is not None:
            door = open_door(config.door)
            self._till, self._probe = Till(door, config.realm, sign=sign), AsyncDoor(door)

    def stop(self) -> None:
        """Close what is open to the sellers' door."""
        if self._till is not None and self._probe is not None:
            self._till.close()
            self._probe.close()

    async def trouble(self) -> str:
        """Return why nothing can be sold just now; empty if it can."""
        if self._till is None:
            return ""
        assert self._probe is not None
        told = await self._probe.call("GET", TERMS)
        return "" if told is not None and told.status == 200 else "the sellers' door does not answer"

    async def manage(self, request: Request) -> Answer | None:
        """Answer a request that handles a channel and buys nothing."""
        if self._till is None or request.method != "HEAD" or not request.credentials:
            return None
        return await self._till.manage(_request_of(request, b""))

    async def decide(self, request: Request, route: Route, digest: bytes | None) -> Answer | Sale:
        """Return the till's decision. digest: of the body, as facts.Request has it."""
        assert self._till is not None and route.price is not None
        return await self._till.decide(_request_of(request, digest, route.host), self._prices[id(route)])

    async def finish(self, sale: Sale, route: Route, status: int) -> Headers:
        """Say with which status an answer begins; return what it is to be sent with. A receipt is for 2xx alone. Raises Instead."""
        assert self._till is not None
        more = await self._till.finish(sale, _PAID_STATUS if status in route.charged else _UNPAID_STATUS)
        if isinstance(more, Answer):
            raise Instead(more)
        return [pair for pair in more if pair[0].lower() != RECEIPT.lower() or 200 <= status < 300]

    def meter(self, sale: Sale, route: Route) -> Meter | None:
        """Return what counts a sale that is paid while it runs."""
        assert self._till is not None and route.price is not None
        return Meter(self._till, sale, route.price) if route.price.is_metered else None

    def close(self, sale: Sale, sent: Answer | None) -> None:
        """Keep an answer for who asks again, or say that it cannot be kept."""
        assert self._till is not None
        if sent is not None and len(sent.body) <= KEPT_BYTES_MAX:
            self._till.keep(sale, sent)
        else:
            self._till.forget(sale)

    async def failed(self, sale: Sale) -> None:
        """Give a charge back."""
        assert self._till is not None
        await self._till.failed(sale)


def open_door(door: Door) -> wire.Door:
    """Return the till's words for where the door is. Raises ConfigError."""
    try:
        token = "" if door.token_file is None else door.token_file.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{door.token_file}: holds no token that could be read") from error
    return wire.find_door(str(door.socket) if door.socket else door.url, token)


def price_of(route: Route, price: Price) -> facts.Price:
    """Return what the till calls the price of a route."""
    return facts.Price(
        amount=price.amount,
        units=price.ahead,
        unit=price.unit.value,
        description=route.description,
        repeats=False if price.is_metered else route.rerun,
    )


def channel_text(sale: Sale) -> str:
    """Return which channel pays, FUNDING_TXID/VOUT."""
    return format_outpoint(sale.outpoint)


def _request_of(request: Request, digest: bytes | None, host: str = "") -> facts.Request:
    """Return what the till is told. host: of the route; if it has one, what is bought is that host's."""
    keys = request.values("idempotency-key")
    return facts.Request(
        method=request.method,
        target=f"//{request.host}{request.target}" if host else request.target,
        credentials=tuple(request.values("authorization") + request.values("payment-authorization")),
        body=digest,
        idempotency_key=keys[0] if keys else "",
    )
