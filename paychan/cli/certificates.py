"""The certificates of a cluster, made by the `openssl` command: an authority of its own, and one certificate for each machine.

    DIRECTORY/ca.crt, ca.key        the authority; the key stays here, and nowhere else
    DIRECTORY/HOST/ca.crt, peer.crt, peer.key       what that machine needs

openssl is given its configuration with each call: what a distribution has in /etc differs, and adds extensions of its own.
"""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from ..rpc.peer_tls import CertificateError, CertificateFiles, prove
from .output import CommandError

AUTHORITY_DAYS = 3650
DAYS = 365
RENEWED_BEFORE = 3
"""A certificate is renewed when less than one part of so many of its days is left."""

_OPENSSL_SECONDS_MAX = 60
_ANY_DISTINGUISHED_NAME = "[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = {name}\n"
_AUTHORITY = "basicConstraints = critical, CA:TRUE, pathlen:0\nkeyUsage = critical, keyCertSign\nsubjectKeyIdentifier = hash\n"
_MACHINE = (
    "basicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\nextendedKeyUsage = serverAuth, clientAuth\n"
    "subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\nsubjectAltName = {names}\n"
)


@dataclass(frozen=True)
class Machine:
    """A machine of the cluster: its names and IP addresses; its folder is called by the first."""

    hosts: tuple[str, ...]

    @property
    def names(self) -> str:
        """The names as openssl wants them."""
        return ", ".join(f"{'IP' if _is_address(host) else 'DNS'}:{host}" for host in self.hosts)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
        return True
    except ValueError:
        return False


def make_certificates(
    directory: Path, machines: Sequence[Machine], now: float, days: int, renew: bool
) -> list[tuple[Machine, str]]:
    """Make the authority, if there is none, and a certificate for each machine that has none, or one that ends soon.

    renew: for all of them. now: unix seconds; days: until a certificate ends. Return for each machine what was done: made, renewed
    or kept. Raises CommandError.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        raise CommandError("there is no `openssl` command here; the package openssl of every distribution has it")
    old_mask = os.umask(0o077)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".making-") as scratch:
            maker = _Maker(openssl, directory, Path(scratch))
            maker.make_authority()
            return [(machine, maker.make(machine, now, days, renew)) for machine in machines]
    except OSError as error:
        raise CommandError(f"{error.filename or directory}: {error.strerror}") from error
    finally:
        os.umask(old_mask)


class _Maker:
    """One run. What is made is made in `scratch`, and moved to its place when it is whole."""

    def __init__(self, openssl: str, directory: Path, scratch: Path) -> None:
        self._openssl, self._directory, self._scratch = openssl, directory, scratch

    def _run(self, *arguments: object) -> None:
        """Raises CommandError with what openssl says; there is no secret in it."""
        command = [self._openssl, *map(str, arguments)]
        environment = {**os.environ, "OPENSSL_CONF": os.devnull}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=_OPENSSL_SECONDS_MAX, env=environment,
                stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise CommandError(f"{self._openssl} {command[1]}: does not end") from error
        if done.returncode:
            said = " ".join(done.stderr.split())[-300:]
            raise CommandError(f"{self._openssl} {command[1]}: {said or f'ended with status {done.returncode}'}")

    def _write(self, name: str, text: str) -> Path:
        path = self._scratch / name
        path.write_text(text)
        return path

    def _make_key(self, name: str) -> Path:
        """Return a new key on P-256, in a file of mode 0600."""
        path = self._scratch / name
        self._run("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path)
        return path

    def make_authority(self) -> None:
        """Make the authority unless it is there. Raises CommandError if half of it is."""
        certificate, key = self._directory / "ca.crt", self._directory / "ca.key"
        if certificate.exists() and key.exists():
            return
        if certificate.exists() or key.exists():
            there, missing = (certificate, key) if certificate.exists() else (key, certificate)
            raise CommandError(f"{missing} is missing beside {there}: machines believe that authority alone; bring it back")
        made_key = self._make_key("ca.key")
        config = self._write("ca.cnf", _ANY_DISTINGUISHED_NAME.format(name=f"paychan cluster {secrets.token_hex(4)}"))
        config.write_text(config.read_text().replace("[name]", "x509_extensions = ca\n[name]") + f"[ca]\n{_AUTHORITY}")
        made = self._scratch / "ca.crt"
        self._run("req", "-x509", "-new", "-sha256", "-config", config, "-key", made_key, "-days", AUTHORITY_DAYS, "-out", made)
        made_key.rename(key)
        made.rename(certificate)

    def make(self, machine: Machine, now: float, days: int, renew: bool) -> str:
        """Make a machine's certificate, with a new key, if it needs one; return made, renewed or kept."""
        place = self._directory / machine.hosts[0]
        files = CertificateFiles(place / "ca.crt", place / "peer.crt", place / "peer.key")
        is_there = files.certificate.exists()
        if is_there and not renew and _is_good(files, machine, self._directory / "ca.crt", now + days * 86_400 / RENEWED_BEFORE):
            return "kept"
        key, request, made = self._make_key("peer.key"), self._scratch / "peer.csr", self._scratch / "peer.crt"
        config = self._write("peer.cnf", _ANY_DISTINGUISHED_NAME.format(name=machine.hosts[0][:64]))
        extensions = self._write("peer.ext", _MACHINE.format(names=machine.names))
        authority, authority_key = self._directory / "ca.crt", self._directory / "ca.key"
        self._run("req", "-new", "-sha256", "-config", config, "-key", key, "-out", request)
        self._run(
            "x509", "-req", "-sha256", "-in", request, "-CA", authority, "-CAkey", authority_key, "-days", days,
            "-set_serial", f"0x{secrets.randbits(126):x}", "-extfile", extensions, "-out", made,
        )  # fmt: skip
        place.mkdir(exist_ok=True)
        shutil.copyfile(authority, self._scratch / "copy.crt")
        for path, target in ((key, files.key), (made, files.certificate), (self._scratch / "copy.crt", files.ca)):
            path.rename(target)
        return "renewed" if is_there else "made"


def _is_good(files: CertificateFiles, machine: Machine, authority: Path, until: float) -> bool:
    """Return whether a machine's files are this authority's, name all its hosts, and are good until then (unix seconds)."""
    try:
        of_this = CertificateFiles(authority, files.certificate, files.key)
        is_copied = files.ca.read_bytes() == authority.read_bytes()
        return is_copied and all(prove(of_this, host) >= until for host in machine.hosts)
    except (CertificateError, OSError):
        return False
