"""A seller's prices, by method and path: for applications that are put behind a till as a whole.

    Prices({"/joke": 5, "POST /translate": price_of, "GET /free": None, "/articles/*": Price(20, description="an article")})

The first pattern that fits counts; what fits none is free. `*` stands for anything but a slash, `**` for anything. A method before
the path limits it to that method; GET stands for HEAD too. The path is the one that the application gets, without escapes: where it
takes two paths for one (a slash at the end, capitals), list both, or `/**`. A WebSocket at a path that costs something is refused.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .facts import Price

Amount = int | Price | None
Asked = Callable[[Any], "Amount | Awaitable[Amount]"]
"""A price that depends on the request, which comes as the framework has it: ASGI and RSGI scope, WSGI environ, Flask's or Django's
request, FastAPI's Request. None: free."""

Wanted = int | Price | Asked | None


def as_price(amount: Amount) -> Price | None:
    """Return satoshi as a price of one request. Raises ValueError for what is no price."""
    if amount is None or isinstance(amount, Price):
        return amount
    return Price(amount)


async def settle_price(wanted: Wanted, request: Any) -> Price | None:
    """Return the price of a request."""
    if callable(wanted):
        amount = wanted(request)
        return as_price(await amount if inspect.isawaitable(amount) else amount)
    return as_price(wanted)


def settle_price_now(wanted: Wanted, request: Any) -> Price | None:
    """Return the price of a request where nothing can be awaited."""
    return as_price(wanted(request) if callable(wanted) else wanted)  # type: ignore[arg-type]  # it says so if it is a coroutine


def _pattern(text: str) -> re.Pattern[str]:
    parts = {"**": ".*", "*": "[^/]*"}
    return re.compile("".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*)", text)), re.DOTALL)


class Prices:
    """See above. Raises ValueError for what is no price list."""

    def __init__(self, listed: Mapping[str, Wanted]) -> None:
        self._rows: list[tuple[str, re.Pattern[str], Wanted]] = []
        for text, wanted in listed.items():
            method, _, path = text.rpartition(" ")
            if not path.startswith("/") or method != method.upper():
                raise ValueError(f"{text!r} is no path, nor a method and a path")
            self._rows.append((method, _pattern(path), as_price(wanted) if not callable(wanted) else wanted))

    def find(self, method: str, path: str) -> Wanted:
        """Return what a request costs."""
        method = "GET" if method == "HEAD" else method
        for wanted_method, pattern, wanted in self._rows:
            if wanted_method in ("", method) and pattern.fullmatch(path):
                return wanted
        return None
