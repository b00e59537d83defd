"""Certificates: of the cluster, and of the sellers' door; when they end, and whether they fit their keys."""

import time
from datetime import UTC, datetime

from ..rpc.peer_tls import CertificateError, end_of
from ..settings.cluster import trouble_with_end
from .machine import Machine
from .verdicts import NotAsked, Verdict, bad, ok, warning

RENEW = "renew it, and reload the server (SIGHUP)"


def cluster(machine: Machine) -> list[Verdict]:
    config = machine.server.cluster
    if config is None:
        raise NotAsked("this machine is in no cluster")
    if not config.certificate_ends:
        return [
            bad("cluster", "the certificate is no good: see the subject configuration", "`paychan cluster certificates` makes them")
        ]
    return [judge("cluster", config.certificate_ends, time.time())]


def judge(check: str, ends: int, now: float) -> Verdict:
    """ends, now: unix seconds."""
    why = trouble_with_end(ends, now)
    if not why:
        return ok(check, f"good until {datetime.fromtimestamp(ends, UTC):%Y-%m-%d}")
    return bad(check, f"the certificate {why}", RENEW) if now >= ends else warning(check, f"the certificate {why}", RENEW)


def sellers(machine: Machine) -> list[Verdict]:
    """Load the sellers' certificate as the server does, and look at its end."""
    config = machine.server.sell
    if config.tls_certificate is None or config.tls_key is None:
        raise NotAsked("the sellers' door has no TLS of its own")
    try:
        return [judge("sellers", end_of(config.tls_certificate, config.tls_key), time.time())]
    except CertificateError as error:
        return [bad("sellers", str(error), "bring a certificate and its key, both PEM, the key without a password")]
