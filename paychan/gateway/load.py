"""Reading `gateway.toml`: strict, and every complaint at once, one line each (`settings.sections`)."""

import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from ..core.units import MAX_MONEY
from ..settings import dangers, hosts
from ..settings.sections import Section, read_sections
from .fields import trouble_with_field
from .models import Discovery, Door, Fields, GatewayConfig, Limits, Price, Receipts, Route, Unit, Upstream
from .receipts import WELL_KNOWN
from .routes import places_of
from .targets import check_path, fold, host_name

METHOD = re.compile(r"[A-Z]{1,32}\Z")
NEVER_PASSED_ON = frozenset({"CONNECT", "TRACE"})
"""A tunnel is no resource, and TRACE shows what others must not see (RFC 9110 section 9.3.8)."""

HEALTH, READY = "/healthz", "/readyz"
"""What the gateway answers itself, on every host."""

DESCRIPTION = "/openapi.json"
"""And this, if `[discovery]` is there."""

_PRICES = {
    "price": Unit.REQUEST,
    "price_per_kilobyte": Unit.KILOBYTE,
    "price_per_second": Unit.SECOND,
    "price_per_event": Unit.EVENT,
}
_AHEAD = {Unit.REQUEST: 1, Unit.KILOBYTE: 64, Unit.SECOND: 5, Unit.EVENT: 20}
"""How many units are reserved at a time unless the file says otherwise: so much a payer misses for a while if the gateway is
killed."""

_STATUS = re.compile(r"[2-4]xx\Z|[2-4][0-9]{2}\Z")


def load_gateway_config(path: str | os.PathLike[str]) -> GatewayConfig:
    """Return the checked configuration. Raises ConfigError, which has a line for everything that is wrong."""
    root = read_sections(path)
    directory = Path(path).absolute().parent
    gateway = root.table("gateway")
    limits = _limits(root.table("limits"), _LIMITS)
    upstreams = {name: _upstream(name, section) for name, section in root.named_tables("upstreams").items()}
    if not upstreams:
        root.fail("upstreams", "name at least one: [upstreams.NAME] with its url")
    public_url = _public_url(gateway)
    config = GatewayConfig(
        source=root.source,
        host=_address(gateway, "host", "127.0.0.1"),
        port=gateway.integer("port", 1, 65535, 8402),
        workers=gateway.integer("workers", 1, 256, 1),
        public_url=public_url,
        realm=gateway.text("realm", urlsplit(public_url).netloc),
        trusted_proxies=_networks(gateway, "trusted_proxies"),
        tls_certificate=_path(directory, gateway, "tls_certificate"),
        tls_key=_path(directory, gateway, "tls_key"),
        concurrency=gateway.integer("concurrency_max", 1, 100_000, 1000),
        stop_seconds=gateway.integer("stop_seconds", 1, 3600, 20),
        forward_auth=_own_path(gateway, "forward_auth"),
        cors_origins=_origins(gateway),
        door=_door(root, directory),
        receipts=_receipts(root, directory),
        discovery=_discovery(root),
        routes=tuple(_route(section, upstreams, limits, directory) for section in root.tables("routes")),
    )
    _check(config, root)
    root.finish(config)
    return config


_LIMITS = Limits(
    body_bytes=1 << 20,
    concurrency=1000,
    body_seconds=60,
    answer_seconds=60,
    idle_seconds=60,
    stream_seconds=24 * 3600,
    websocket_message_bytes=1 << 20,
)


def _limits(section: Section, default: Limits) -> Limits:
    return Limits(
        body_bytes=section.integer("body_bytes_max", 0, 1 << 40, default.body_bytes),
        concurrency=section.integer("concurrency_max", 1, 100_000, default.concurrency),
        body_seconds=section.integer("body_seconds_max", 1, 86_400, default.body_seconds),
        answer_seconds=section.integer("answer_seconds_max", 1, 86_400, default.answer_seconds),
        idle_seconds=section.integer("idle_seconds_max", 1, 86_400, default.idle_seconds),
        stream_seconds=section.integer("stream_seconds_max", 1, 30 * 86_400, default.stream_seconds),
        websocket_message_bytes=section.integer("websocket_message_bytes_max", 1, 1 << 30, default.websocket_message_bytes),
    )


def _upstream(name: str, section: Section) -> Upstream:
    url = section.text("url").rstrip("/")
    if url and (trouble := hosts.trouble_with_url(url)):
        section.fail("url", trouble)
    elif url and urlsplit(url).path:
        _check_written_path(section, "url", urlsplit(url).path)
    return Upstream(
        name=name,
        url=url,
        connections=section.integer("connections_max", 1, 10_000, 100),
        connect_seconds=section.integer("connect_seconds_max", 1, 600, 5),
        preserve_host=section.boolean("preserve_host", False),
    )


def _route(section: Section, upstreams: dict[str, Upstream], limits: Limits, directory: Path) -> Route:
    path = section.text("path")
    if path:
        _check_written_path(section, "path", path)
    if path in (HEALTH, READY):
        section.fail("path", "is the gateway's own")
    host = section.text("host", "")
    if host and (host != host_name(host) or not _is_host_pattern(host)):
        section.fail("host", "must be a name in lower case, maybe behind '*.', without port and last dot")
    return Route(
        source=f"{section.name} {path}",
        host=host,
        path=path,
        methods=_methods(section),
        upstream=_upstream_of(section, upstreams),
        price=_price(section),
        description=section.text("description", ""),
        charged=_charged(section),
        websocket=section.boolean("websocket", False),
        rerun=section.boolean("rerun") if section.has("rerun") else None,
        limits=_limits(section.table("limits"), limits),
        request_fields=_fields(section, "request_headers", directory),
        response_fields=_fields(section, "response_headers", directory),
    )


def _check_written_path(section: Section, key: str, path: str) -> None:
    """Complain of a path that no request could have."""
    if not path.startswith("/"):
        section.fail(key, "must start with /")
        return
    try:
        check_path(path)
    except Exception as error:
        section.fail(key, f"cannot be asked for: {getattr(error, 'detail', '') or 'it is too long'}; write it without %-encoding")
    if any("*" in part and part != "*" for part in path.split("/")):
        section.fail(key, "'*' stands for a whole segment, or at the end for all that follows")


def _is_host_pattern(text: str) -> bool:
    try:
        hosts.host(text.removeprefix("*."))
    except ValueError:
        return False
    return True


def _methods(section: Section) -> frozenset[str]:
    methods = frozenset(section.texts("methods"))
    for method in sorted(methods):
        if not METHOD.match(method) or method in NEVER_PASSED_ON:
            section.fail("methods", f"{method} is no method that is passed on; methods are written in capitals")
    return methods


def _upstream_of(section: Section, upstreams: dict[str, Upstream]) -> Upstream:
    only = next(iter(upstreams)) if len(upstreams) == 1 else None
    name = section.text("upstream", only)
    if name and name not in upstreams:
        section.fail("upstream", f"no [upstreams.{name}] is there")
    return upstreams.get(name) or Upstream(name, "", 1, 1, False)


def _price(section: Section) -> Price | None:
    """Return what a route costs: exactly one of the prices, or `free = true`. So nothing is free by an oversight."""
    given = [key for key in _PRICES if section.has(key)]
    is_free = section.boolean("free", False)
    if len(given) + is_free != 1:
        section.fail("", f"give one of {', '.join(_PRICES)}, or free = true")
    amounts = {key: section.integer(key, 1, MAX_MONEY) for key in given}
    if not given:
        if section.has("reserve"):
            section.integer("reserve", 1, 1_000_000)
            section.fail("reserve", "is of a price for what is counted")
        return None
    unit = _PRICES[given[0]]
    ahead = section.integer("reserve", 1, 1_000_000, _AHEAD[unit])
    if unit is Unit.REQUEST and section.has("reserve"):
        section.fail("reserve", "is of a price for what is counted")
    if amounts[given[0]] * ahead > MAX_MONEY:
        section.fail("reserve", "is worth more than all bitcoins")
    return Price(amounts[given[0]], unit, ahead)


def _charged(section: Section) -> frozenset[int]:
    """Return the statuses that cost the price. A 5xx never does: it is the seller's own failure."""
    statuses: set[int] = set()
    for text in section.texts("charged") or ("2xx",):
        if not _STATUS.match(text):
            section.fail("charged", 'must be statuses from 200 to 499, such as "404", or classes of them, such as "2xx"')
        elif text.endswith("xx"):
            statuses.update(range(int(text[0]) * 100, int(text[0]) * 100 + 100))
        else:
            statuses.add(int(text))
    return frozenset(statuses)


def _fields(section: Section, key: str, directory: Path) -> Fields:
    """Return what the operator wants of header fields: `set`, `set_from_files` for what is secret, and `remove`."""
    table = section.table(key)
    drop = frozenset(name.lower() for name in table.texts("remove"))
    put = [(name.lower(), value) for name, value in table.text_pairs("set")]
    for name, file in table.text_pairs("set_from_files"):
        path = directory / file
        dangers.check_secret_file(table, f"set_from_files.{name}", path, group_may_read=True)
        try:
            put.append((name.lower(), path.read_text().strip()))
        except (OSError, ValueError):
            table.fail(f"set_from_files.{name}", f"{path} cannot be read")
    for name, value in (*put, *((name, "") for name in drop)):
        if reason := trouble_with_field(name, value):
            table.fail(name, reason)
    return Fields(tuple(put), drop)


def _door(root: Section, directory: Path) -> Door | None:
    if not root.has("seller"):
        return None
    seller = root.table("seller")
    socket, url = _path(directory, seller, "socket"), seller.text("url", "").rstrip("/")
    if (socket is None) == (not url):
        seller.fail("socket", "give the sellers' door as socket (a path) or as url")
    if url:
        _check_seller_url(seller, "url", url)
    token_file = _path(directory, seller, "token_file")
    if url and token_file is None:
        seller.fail("token_file", "is missing: `paychan token add gateway --scope charge CONFIG_DIR` makes a token for it")
    dangers.check_secret_file(seller, "token_file", token_file, group_may_read=True)
    return Door(socket, url, token_file)


def _receipts(root: Section, directory: Path) -> Receipts | None:
    if not root.has("receipts"):
        return None
    table = root.table("receipts")
    key = _path(directory, table, "key")
    if key is None:
        table.fail("key", "is missing: `paychan receipts key FILE` makes one")
        return None
    dangers.check_secret_file(table, "key", key, group_may_read=False)
    return Receipts(key, tuple(directory / path for path in table.texts("older")))


def _check_seller_url(seller: Section, key: str, url: str) -> None:
    if trouble := hosts.trouble_with_url(url):
        seller.fail(key, trouble)
    elif url.startswith("http:") and not hosts.is_loopback(hosts.host_of(url)):
        seller.fail(key, "must be https: the token would cross the network in plain text")


def _discovery(root: Section) -> Discovery | None:
    if not root.has("discovery"):
        return None
    table = root.table("discovery")
    return Discovery(table.text("title"), table.text("version", "1"), table.text("description", ""))


def _public_url(gateway: Section) -> str:
    url = gateway.text("public_url", "").rstrip("/")
    if url and (trouble := hosts.trouble_with_url(url)):
        gateway.fail("public_url", trouble)
        return ""
    if urlsplit(url).path:
        gateway.fail("public_url", "must have no path")
    return url


def _own_path(section: Section, key: str) -> str:
    """Return an optional path of the gateway's own."""
    path = section.text(key, "")
    if path:
        _check_written_path(section, key, path)
    return path


def _origins(section: Section) -> frozenset[str]:
    origins = frozenset(section.texts("cors_origins"))
    for origin in sorted(origins - {"*"}):
        if hosts.trouble_with_url(origin) or urlsplit(origin).path or origin != origin.lower():
            section.fail("cors_origins", f"{origin} is no origin, such as https://shop.example, or *")
    return origins


def _networks(section: Section, key: str) -> tuple[IPv4Network | IPv6Network, ...]:
    networks = []
    for text in section.texts(key):
        try:
            networks.append(ip_network(text))
        except ValueError:
            section.fail(key, f"{text} is neither an IP address nor a network such as 10.0.0.0/8")
    return tuple(networks)


def _address(section: Section, key: str, default: str) -> str:
    text = section.text(key, default)
    try:
        return hosts.listening_address(text) if text else default
    except ValueError as error:
        section.fail(key, str(error))
        return default


def _path(directory: Path, section: Section, key: str) -> Path | None:
    path = section.path(key)
    return None if path is None else directory / path


def _check(config: GatewayConfig, root: Section) -> None:
    gateway = root.table("gateway")
    if not config.routes:
        root.fail("routes", "name at least one: [[routes]] with a path, and a price or free = true")
    is_paid = any(route.price for route in config.routes)
    if is_paid and config.door is None:
        root.fail("seller", "is missing: routes have prices, and this says where payments are judged")
    if is_paid and not config.realm:
        gateway.fail("realm", "is missing: what payers are asked to pay for; public_url also gives it")
    if (config.tls_certificate is None) != (config.tls_key is None):
        gateway.fail("tls_key", "tls_certificate and tls_key come together")
    dangers.check_secret_file(gateway, "tls_key", config.tls_key, group_may_read=True)
    _check_routes(config, root)


def _check_routes(config: GatewayConfig, root: Section) -> None:
    """Complain of routes of which a request could take one or the other."""
    with_host = [route for route in config.routes if route.host]
    if with_host and len(with_host) < len(config.routes):
        bare = next(route for route in config.routes if not route.host)
        root.fail(bare.source, "names no host, and others do: what it offers could be had under their hosts' names; say which host")
    places = places_of(config.routes)
    own = {config.forward_auth: "gateway.forward_auth", DESCRIPTION if config.discovery else "": "discovery"}
    own[WELL_KNOWN if config.receipts else ""] = "receipts"
    for place in places:
        if place.path in own:
            root.fail(place.routes[0].source, f"is the gateway's own, by {own[place.path]}")
        for number, route in enumerate(place.routes):
            before = place.routes[:number]
            if any(not other.methods or not route.methods or other.methods & route.methods for other in before):
                root.fail(route.source, "another route has the same path and method")
    last = {(place.host, fold(place.path)): place for place in places}
    for place in places:
        if last[place.host, fold(place.path)] is not place:
            root.fail(place.routes[0].source, "differs from another route in case alone; many servers see no difference")
