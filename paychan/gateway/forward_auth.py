"""The request that another proxy asks about: Caddy's and Traefik's `forward_auth`, nginx's `auth_request`.

The proxy tells method, host and target in X-Forwarded-Method, -Host and -Uri, and passes on the target itself, as it came: so
what its upstream could read in another way than we do is refused here even where the gateway would send its own spelling.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from urllib.parse import unquote

from .fields import is_trusted, sender_of
from .load import METHOD, NEVER_PASSED_ON
from .refusals import Refused
from .requests import Request
from .targets import check_host, check_path, check_query

_ENCODED_DELIMITER = re.compile(r"%(2[ef]|5c)", re.IGNORECASE)
_FIELDS = ("x-forwarded-method", "x-forwarded-host", "x-forwarded-uri")


def asked_about(request: Request, trusted: Sequence[IPv4Network | IPv6Network]) -> Request:
    """Return the request that is asked about. Raises Refused, also if who asks is none of the trusted proxies."""
    if not is_trusted(request.sender.address, trusted):
        raise Refused("not_a_proxy")
    values = {name: request.values(name) for name in _FIELDS}
    if any(len(value) != 1 for value in values.values()):
        raise Refused("malformed_request", f"there must be one of each of {', '.join(_FIELDS)}")
    method, host, target = (values[name][0] for name in _FIELDS)
    if not METHOD.match(method) or method in NEVER_PASSED_ON:
        raise Refused("method_unknown")
    raw_path, _, query = target.partition("?")
    if _ENCODED_DELIMITER.search(raw_path):
        raise Refused("ambiguous_target", "the path holds an encoded dot, slash or backslash")
    name, field = check_host(None, [host])
    return replace(
        request,
        method=method,
        path=check_path(unquote(raw_path, errors="replace")),
        query=check_query(query),
        host=name,
        host_field=field,
        sender=sender_of(request.client, request.sender.scheme, field, request.headers, trusted),
        size=0,
    )
