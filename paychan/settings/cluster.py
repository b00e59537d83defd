"""`[cluster]` in server.toml: this machine among those that share one store, and the certificate that it shows the others.

The certificate is tried as a peer would try it. One that has ended is no reason not to start: what this machine owns can be paid
and must be settled all the same. The worker says it, and `paychan config check` calls it a problem.
"""

import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ..rpc.peer_address import MACHINE
from ..rpc.peer_tls import CertificateError, CertificateFiles, prove
from . import dangers, hosts
from .models import ClusterConfig, Common
from .sections import Section

SOON_SECONDS = 21 * 24 * 3600
"""A certificate that ends sooner is told of. `paychan cluster certificates` renews them well before."""


def cluster_config(root: Section, common: Common) -> ClusterConfig | None:
    """Return what `[cluster]` says; None if there is no such table."""
    section = root.table("cluster")
    if not root.has("cluster"):
        return None
    machine = section.text("machine")
    if machine and not MACHINE.match(machine):
        section.fail("machine", "must be up to 64 letters, digits, '.', '_' and '-'")
    peer_host = _host(section, "peer_host", hosts.host, None)
    files = _files(section, common)
    ends = _try_out(section, files, peer_host) if files is not None and peer_host else 0
    return ClusterConfig(
        machine=machine,
        peer_host=peer_host,
        peer_port=section.integer("peer_port", 1, 65535),
        listen_host=_listen_host(section, peer_host),
        files=files or CertificateFiles(Path(), Path(), Path()),
        certificate_ends=ends,
    )


def _host(section: Section, key: str, read: Callable[[str], str], default: str | None) -> str:
    text = section.text(key, default)
    try:
        return read(text) if text else ""
    except ValueError as error:
        section.fail(key, str(error))
        return ""


def _listen_host(section: Section, peer_host: str) -> str:
    """Return the IP address to listen on: the one that peers connect to, unless they use a name."""
    if section.has("listen_host") or not peer_host:
        return _host(section, "listen_host", hosts.listening_address, "")
    try:
        return hosts.listening_address(peer_host)
    except ValueError:
        section.fail("listen_host", "is missing: peer_host is a name, and an address of this machine is listened on")
        return ""


def _files(section: Section, common: Common) -> CertificateFiles | None:
    paths = {}
    for key in ("ca", "certificate", "key"):
        text = section.text(key)
        paths[key] = common.state_dir / text
        if text and (why := dangers.trouble_with_path(paths[key])):
            section.fail(key, why)
            return None
        if not text:
            return None
    return CertificateFiles(paths["ca"], paths["certificate"], paths["key"])


def _try_out(section: Section, files: CertificateFiles, peer_host: str) -> int:
    """Return until when the certificate is good (unix seconds), 0 if it is no good at all."""
    try:
        mode = files.key.stat().st_mode
    except (OSError, ValueError):
        mode = 0  # below it is said why
    if mode & (stat.S_IWGRP | stat.S_IRWXO):
        section.fail("key", f"{files.key} is open to others: who has it can open channels on money that is not there")
        return 0
    try:
        return prove(files, peer_host)
    except CertificateError as error:
        section.fail(error.key, str(error))
        return 0


def trouble_with_end(ends: int, now: float) -> str:
    """Return that a certificate ends soon, or has ended; empty while it is good for longer. Both in unix seconds."""
    if now < ends - SOON_SECONDS:
        return ""
    when = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"ends at {when}; renew it" if now < ends else f"has ended at {when}: other machines answer 503 for what is owned here"
