"""The table `[limits]` of server.toml: what one address may cost, and which proxies are believed when they name one."""

from dataclasses import dataclass, field

from ..core.addresses import HEADERS, Networks
from .sections import Section

OPENS_PER_MINUTE = 1200
"""A thousand payers behind one address may all open within the same minute, and some ask twice."""

FAILURES_PER_MINUTE = 600
"""Who pays as he should has none of them; ten a second are a program that is broken, times a thousand."""

CONNECTIONS = 2048
"""To one worker: two for each of a thousand payers, and half of what there are."""

NUMBER_MAX = 1_000_000

EXEMPT = ("127.0.0.0/8", "::1/128")
"""What comes from this machine: a proxy that names no clients, a service's own look, a benchmark."""


@dataclass(frozen=True)
class LimitsConfig:
    """What one address may cost one worker; 0: anything. header: of HEADERS, what trusted proxies write. exempt: is not counted."""

    opens_per_minute: int = OPENS_PER_MINUTE
    failures_per_minute: int = FAILURES_PER_MINUTE
    connections: int = CONNECTIONS
    header: str = HEADERS[0]
    trusted_proxies: Networks = field(default_factory=Networks)
    exempt: Networks = field(default_factory=lambda: Networks(EXEMPT))


def limits_config(root: Section) -> LimitsConfig:
    """Return the checked table."""
    limits = root.table("limits")
    header = limits.text("header", HEADERS[0]).lower()
    if header not in HEADERS:
        limits.fail("header", "must be X-Forwarded-For or Forwarded, whichever the proxies write")
    return LimitsConfig(
        opens_per_minute=limits.integer("opens_per_minute", 0, NUMBER_MAX, OPENS_PER_MINUTE),
        failures_per_minute=limits.integer("failures_per_minute", 0, NUMBER_MAX, FAILURES_PER_MINUTE),
        connections=limits.integer("connections", 0, NUMBER_MAX, CONNECTIONS),
        header=header,
        trusted_proxies=_trusted(limits),
        exempt=_networks(limits, "exempt", EXEMPT),
    )


def _networks(limits: Section, key: str, default: tuple[str, ...] = ()) -> Networks:
    texts = limits.texts(key) if limits.has(key) else default
    try:
        return Networks(texts)
    except ValueError:
        limits.fail(key, 'must be networks, like "10.0.0.0/8", "2001:db8::/32" or "192.0.2.1", or "unix"')
        return Networks()


def _trusted(limits: Section) -> Networks:
    found = _networks(limits, "trusted_proxies")
    if any(text.endswith("/0") for text in found.texts):
        limits.fail("trusted_proxies", "must not be everybody: each client could say that it is another one")
        return Networks()
    return found
