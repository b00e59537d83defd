"""Certificates for tests of a cluster: made by the shipped command's code, and such as it would never make."""

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from paychan.cli.certificates import Machine, make_certificates
from paychan.rpc.peer_tls import CertificateFiles

ALPHA, BETA = "127.0.0.1", "127.0.0.2"
"""Two addresses of this machine that play two machines."""


def make(directory: Path, *hosts: str, days: int = 365, renew: bool = False) -> Path:
    """Make, or renew, a cluster's certificates, and return their directory. Skips the test where there is no openssl."""
    need_openssl()
    make_certificates(directory, [Machine((host,)) for host in hosts or (ALPHA, BETA)], time.time(), days, renew)
    return directory


def need_openssl() -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl command here")


def files_of(directory: Path, host: str) -> CertificateFiles:
    place = directory / host
    return CertificateFiles(place / "ca.crt", place / "peer.crt", place / "peer.key")


def sign(directory: Path, host: str, extensions: Sequence[str], *, names: str = "", begins_and_ends: str = "") -> None:
    """Replace a machine's certificate by one of its authority that has other extensions, names or times.

    names: as openssl has them, such as IP:127.0.0.9. begins_and_ends: two times as openssl's ca has them, apart by a space.
    """
    place, scratch = directory / host, directory / "scratch"
    scratch.mkdir(exist_ok=True)
    (scratch / "index.txt").write_text("")
    (scratch / "request.cnf").write_text("[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = odd\n")
    text = [*extensions, f"subjectAltName = {names or f'IP:{host}'}"]
    (scratch / "ca.cnf").write_text(
        f"[ca]\ndefault_ca = own\n[own]\ndatabase = {scratch}/index.txt\nnew_certs_dir = {scratch}\ndefault_md = sha256\n"
        "policy = any\nrand_serial = yes\nx509_extensions = end\n[any]\ncommonName = supplied\n[end]\n" + "\n".join(text) + "\n"
    )
    begins, ends = (begins_and_ends or "20250101000000Z 20490101000000Z").split(" ")
    run("req", "-new", "-config", scratch / "request.cnf", "-key", place / "peer.key", "-out", scratch / "request")
    run(
        "ca", "-batch", "-notext", "-config", scratch / "ca.cnf", "-cert", directory / "ca.crt", "-keyfile", directory / "ca.key",
        "-startdate", begins, "-enddate", ends, "-in", scratch / "request", "-out", place / "peer.crt",
    )  # fmt: skip


def run(*arguments: object) -> str:
    """Run openssl; return what it prints."""
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


USUAL = ("basicConstraints = critical, CA:FALSE", "extendedKeyUsage = serverAuth, clientAuth")
"""Extensions of a machine's certificate."""

EXPIRED = "20250101000000Z 20250201000000Z"
