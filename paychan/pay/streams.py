"""What a paid stream of events says about money, for who reads it."""

from ..client import Refused
from ..mpp.problems import parse_problem
from ..mpp.sse import ERROR, RECEIPT
from .sse import Event


class Topped:
    """Judges a stream: goods are passed on, what is about money is kept back."""

    def check(self, is_taken: bool) -> None:
        """Raises Refused if the server did not take what it asked for: the stream would wait in vain."""
        if not is_taken:
            raise Refused("the server asked for a payment, and did not take it", "stream_unpaid")

    def is_goods(self, event: Event) -> bool:
        """Return whether an event is what was bought. Raises Refused for one that says that the stream ends unpaid."""
        if event.name == ERROR:
            problem = parse_problem(event.data.encode(), 402)
            raise Refused(problem.detail or "the server ended the stream", problem.code or "stream_ended")
        return event.name != RECEIPT
