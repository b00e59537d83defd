"""A payer that needs no HTTP library: for `paychan get`, and wherever the standard library must do.

from paychan.pay.plain import Payer

with Payer("purse/").request("GET", "http://127.0.0.1:8080/weather") as response:
    print(response.status, response.read())
"""

import http.client
import ssl
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from ..client import Unreachable
from ..client.transport import reason
from ..client.wire import parse_url
from .errors import TermsRefused
from .payer import Asked
from .payer import Payer as Core
from .sse import Event, EventReader
from .steps import READ_STATUSES, Answer, Try, drive
from .streams import PaidStream

PIECE = 1 << 16
BODY_MAX = 1 << 20
"""Bytes of a refusal that are read."""


class Response:
    """An answer whose body is still to come. headers: names as the server wrote them. Close it, or use it as a context manager."""

    def __init__(self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, asked: Asked) -> None:
        self._connection, self._answer, self.asked = connection, answer, asked
        self.status, self.reason, self.headers = answer.status, answer.reason, answer.headers
        self._start = answer.read(BODY_MAX) if answer.status in READ_STATUSES else b""

    @property
    def start(self) -> bytes:
        """What was read of a refusal."""
        return self._start

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it comes. Raises Unreachable if it breaks off."""
        if self._start:
            yield self._start
        try:
            while piece := self._answer.read1(PIECE):
                yield piece
            if self._answer.length:
                raise Unreachable("the connection broke in the middle of the answer")
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"the connection broke in the middle of the answer: {reason(error)}") from error

    def read(self) -> bytes:
        """Return the whole body."""
        return b"".join(self.pieces())

    def close(self) -> None:
        self._answer.close()
        self._connection.close()

    def __enter__(self) -> "Response":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Payer(Core):
    """See paychan.pay.payer.Payer for its arguments. timeout: seconds without a byte until a connection is given up."""

    timeout = 60.0

    def request(self, method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Response:
        """Send a request, and pay if that is asked. No redirection is followed. Raises Unreachable, and what purchases do."""
        fields = dict(headers or {})
        asked = Asked(method, url, any(name.lower() == "authorization" for name in fields))
        latest: list[Response | Unreachable] = []

        def exchange(step: Try) -> Answer | None:
            for earlier in latest:
                if isinstance(earlier, Response):
                    earlier.close()
            try:
                response = self._send(asked, step, fields, body)
            except (OSError, http.client.HTTPException) as error:
                latest[:] = [Unreachable(f"{asked.origin}: {reason(error)}")]
                return None
            latest[:] = [response]
            return answer_of(response)

        drive(self.purchase(asked), exchange)
        if isinstance(latest[0], Unreachable):
            raise latest[0]
        return latest[0]

    def _send(self, asked: Asked, step: Try, fields: dict[str, str], body: bytes | None) -> Response:
        parts, server = urlsplit(asked.url), parse_url(asked.origin)
        connection: http.client.HTTPConnection
        if server.is_tls:
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(server.host, server.port, timeout=self.timeout, context=context)
        else:
            connection = http.client.HTTPConnection(server.host, server.port, timeout=self.timeout)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            dressed = {"User-Agent": "paychan", "Accept": "*/*", **fields, **step.headers}
            connection.request(step.method or asked.method, target, None if step.method else body, dressed)
            return Response(connection, connection.getresponse(), asked)
        except ValueError as error:
            connection.close()
            raise TermsRefused(f"this request cannot be sent: {error}", "invalid_request") from error
        except BaseException:
            connection.close()
            raise

    def goods(self, response: Response) -> Iterator[bytes]:
        """Yield the body as it comes. Of a paid stream of events, what is about money is kept back, and it is paid on."""
        if response.headers.get_content_type() != "text/event-stream":
            yield from response.pieces()
            return
        for event in self.events(response):
            yield event.raw

    def events(self, response: Response) -> Iterator[Event]:
        """Yield the events of a stream, paying on whenever it asks. Raises what `purchase` and `top_up` do."""
        reader, asked = EventReader(), response.asked
        stream = PaidStream(self, asked)

        def exchange(step: Try) -> Answer | None:
            try:
                with self._send(asked, step, {}, None) as reply:
                    return answer_of(reply)
            except (OSError, http.client.HTTPException):
                return None

        for piece in response.pieces():
            for event in reader.feed(piece):
                if drive(stream.take(event), exchange):
                    yield event

    def close_channel_at(self, url: str, name: str) -> str:
        """Have channel `name` settled by the server at a URL that it sells; return the settlement's txid, empty if untold."""
        asked = Asked("GET", url)

        def exchange(step: Try) -> Answer | None:
            try:
                with self._send(asked, step, {}, None) as reply:
                    return answer_of(reply)
            except (OSError, http.client.HTTPException) as error:
                raise Unreachable(f"{asked.origin}: {reason(error)}") from error

        return drive(self.close_channel(asked, name), exchange)


def answer_of(response: Response) -> Answer:
    """Return an answer as a purchase knows it."""
    return Answer(response.status, tuple((name.lower(), value) for name, value in response.headers.items()), response.start)
