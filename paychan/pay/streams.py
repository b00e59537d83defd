"""What a paid stream of events says about money, and what is done about it; the goods are passed on."""

import json

from ..client import Refused
from ..mpp.problems import parse_problem
from ..mpp.receipt import read_receipt
from ..mpp.sse import ERROR, NEED_VOUCHER, RECEIPT, parse_need_voucher
from .payer import Asked, Payer
from .sse import Event
from .steps import Flow


class PaidStream:
    """Reads one stream. asked: the request that it answers."""

    def __init__(self, payer: Payer, asked: Asked) -> None:
        self._payer, self._asked = payer, asked
        self._added = payer.cost_of(asked)

    def take(self, event: Event) -> Flow[bool]:
        """Return whether an event is what was bought. Pays if it asks for that. Raises what `top_up` does, and Refused for one that
        says that the stream ends unpaid, or that makes no sense."""
        if event.name == ERROR:
            problem = parse_problem(event.data.encode(), 402)
            raise Refused(problem.detail or "the server ended the stream", problem.code or "stream_ended")
        try:
            if event.name == NEED_VOUCHER:
                self._added = yield from self._payer.top_up(self._asked, parse_need_voucher(event.data), self._added)
            elif event.name == RECEIPT:
                yield from self._payer.stream_ended(read_receipt(json.loads(event.data)))
        except (ValueError, RecursionError) as error:
            raise Refused(f"the server's event {event.name} makes no sense", "stream_ended") from error
        return event.name not in (NEED_VOUCHER, RECEIPT)
