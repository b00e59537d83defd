"""A request as granian hands it out, checked: whatever two servers could read in different ways is refused here."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from .fields import Sender, check_framing, is_payment, sender_of
from .load import METHOD, NEVER_PASSED_ON
from .refusals import Headers, Refused
from .targets import check_host, check_path, check_query


@dataclass(frozen=True)
class Request:
    """path: decoded and checked; query: as it came. host: for look-ups; host_field: as it came. size: of the body in bytes.
    client, server: ADDRESS:PORT of the connection's ends."""

    method: str
    path: str
    query: str
    host: str
    host_field: str
    headers: Headers
    size: int
    sender: Sender
    client: str
    server: str
    is_websocket: bool

    def values(self, name: str) -> list[str]:
        """Return the values of a header field; its name in lower case."""
        return [value for key, value in self.headers if key == name]

    @property
    def credentials(self) -> list[str]:
        """The values that hold anything of the Payment scheme."""
        return [value for value in self.values("authorization") if is_payment(value)] + self.values("payment-authorization")

    @property
    def target(self) -> str:
        """Path and query, in the one spelling that a payment is for."""
        return f"{self.path}?{self.query}" if self.query else self.path


def read_request(scope: Any, trusted: Sequence[IPv4Network | IPv6Network]) -> Request:
    """Return the request in an RSGI scope. Raises Refused."""
    headers: Headers = scope.headers.items()
    size = check_framing(headers, scope.http_version)
    method = scope.method
    if not METHOD.match(method) or method in NEVER_PASSED_ON:
        raise Refused("method_unknown")
    host, host_field = check_host(scope.authority, [value for name, value in headers if name == "host"])
    is_websocket = scope.proto == "ws"
    if is_websocket and size:
        raise Refused("malformed_request", "a handshake has no body")
    return Request(
        method=method,
        path=check_path(scope.path),
        query=check_query(scope.query_string),
        host=host,
        host_field=host_field,
        headers=headers,
        size=size,
        sender=sender_of(scope.client, scope.scheme, host_field, headers, trusted),
        client=scope.client,
        server=scope.server,
        is_websocket=is_websocket,
    )
