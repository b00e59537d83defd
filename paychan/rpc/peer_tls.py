"""TLS between the machines of a cluster: version 1.3 and nothing else, a certificate of the cluster's own authority on both sides,
and in the one that answers the host name, or IP address, that was connected to.

Whoever has such a certificate is believed as a worker is: what it says of a funding output opens a channel. So the authority signs
for nothing else, and no other authority is asked.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, which Python has no name for: what has ended is told apart from what is wrong."""

_ROUNDS_MAX = 8
"""Of a handshake in memory; it takes three."""


class CertificateError(Exception):
    """A file that peers would not take. `key`: which (ca, certificate or key); the text says what is wrong."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(why)
        self.key = key


@dataclass(frozen=True)
class CertificateFiles:
    """The authority's certificates (one, or the old and the new one), this machine's own, and its key; each PEM."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Contexts:
    """For those who connect to us, and for those that we connect to."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def make_contexts(files: CertificateFiles) -> Contexts:
    """Return both sides' rules, with the files as they are now. Raises CertificateError."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = True
    server.num_tickets = 0  # a connection lasts: nobody comes back with a ticket
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        _load(context, files)
    return Contexts(server, client)


def _load(context: ssl.SSLContext, files: CertificateFiles) -> None:
    for key, path in (("ca", files.ca), ("certificate", files.certificate), ("key", files.key)):
        try:
            path.open("rb").close()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "cannot be the name of a file"
            raise CertificateError(key, f"{path}: cannot be read: {why}") from error
    try:
        context.load_verify_locations(files.ca)
    except ssl.SSLError as error:
        raise CertificateError("ca", f"{files.ca}: holds no certificate in PEM") from error
    try:
        context.load_cert_chain(files.certificate, files.key, password=lambda: "")  # else a locked key is asked for at the terminal
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateError("key", f"{files.key}: belongs to another certificate than {files.certificate}") from error
        key = "key" if _is_certificate(files.certificate) else "certificate"
        what = "key in PEM, or one with a password" if key == "key" else "certificate in PEM"
        raise CertificateError(key, f"{getattr(files, key)}: holds no {what}") from error


def _is_certificate(path: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        return True
    except (OSError, ssl.SSLError):
        return False


def prove(files: CertificateFiles, host: str) -> int:
    """Have both sides shake hands in memory, as a peer would that connects to `host`, whatever the time is.

    Return until when the certificate is good: unix seconds, its own end or its authority's, whichever is sooner. Raises
    CertificateError with what a peer would find wrong.
    """
    contexts = make_contexts(files)
    for context in (contexts.server, contexts.client):
        context.verify_flags |= _NO_CHECK_TIME
    try:
        found = _shake_hands(contexts, host)
    except ssl.SSLCertVerificationError as error:
        raise CertificateError("certificate", f"{files.certificate}: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise CertificateError("certificate", f"{files.certificate}: {reason_of(error)}") from error
    issuers = [ca for ca in contexts.client.get_ca_certs() if ca["subject"] == found["issuer"]]
    ends = [ssl.cert_time_to_seconds(str(found["notAfter"]))]
    ends += [max(ssl.cert_time_to_seconds(str(ca["notAfter"])) for ca in issuers)] if issuers else []
    return min(ends)


def end_of(certificate: Path, key: Path) -> int:
    """Return until when a server's certificate is good (unix seconds), whoever has signed it. Raises CertificateError: no TLS
    server could use these files."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= _NO_CHECK_TIME | ssl.VERIFY_X509_PARTIAL_CHAIN
    _load(client, CertificateFiles(certificate, certificate, key))
    server.load_cert_chain(certificate, key, password=lambda: "")
    try:
        found = _shake_hands(Contexts(server, client), "")
    except ssl.SSLError as error:
        raise CertificateError("certificate", f"{certificate}: {reason_of(error)}") from error
    return ssl.cert_time_to_seconds(str(found["notAfter"]))


def _shake_hands(contexts: Contexts, host: str) -> dict[str, Any]:
    """Return what the client's side got for the server's certificate. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        contexts.client.wrap_bio(to_client, to_server, server_hostname=host or None),
        contexts.server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = list(sides)
    for _ in range(_ROUNDS_MAX):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
        if not waiting:
            found: dict[str, Any] = sides[0].getpeercert() or {}
            return found
    raise ssl.SSLError("the handshake does not end")


def reason_of(error: BaseException) -> str:
    """Return in a few words why a handshake failed: names of OpenSSL's, never a byte of what was said."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS_ERROR").lower().replace("_", " ")
    if isinstance(error, TimeoutError):
        return "it takes too long"
    return str(getattr(error, "strerror", None) or type(error).__name__)
