"""The certificates of a cluster, made by the `openssl` command: an authority of its own, and a folder for each machine.

    DIRECTORY/ca.crt, ca.key        the authority; the key stays here, and nowhere else
    DIRECTORY/HOST/ca.crt, peer.crt, peer.key       what that machine's workers need
    DIRECTORY/HOST/ca.crt, server.*, ROLE.*         or what it needs of the database: to be one, and to come to one as each role

Workers and the database have an authority each: who has a certificate of the first is believed as a worker is.

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

from ..rpc.peer_tls import CertificateError, CertificateFiles, make_contexts, prove
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
_ROLE = (
    "basicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\nextendedKeyUsage = clientAuth\n"
    "subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n"
)


@dataclass(frozen=True)
class Kind:
    """One of a machine's certificates. stem: what its files are called; role: whom it names, empty: the machine itself, with all
    its names, and then it is for both sides of a connection."""

    stem: str
    role: str = ""


PEER = (Kind("peer"),)
DATABASE = (Kind("server"), *(Kind(role, role) for role in ("paychan_store", "paychan_signer", "replicator", "rewind")))
"""PostgreSQL takes a role by the common name (`cert clientcert=verify-full`)."""


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
    directory: Path, machines: Sequence[Machine], now: float, days: int, renew: bool, kinds: Sequence[Kind] = PEER
) -> list[tuple[Machine, str]]:
    """Make the authority, if there is none, and the certificates of each machine that lacks one, or has one that ends soon.

    kinds: PEER or DATABASE. renew: for all of them. now: unix seconds; days: until a certificate ends. Return for each machine what
    was done: made, renewed or kept. Raises CommandError.
    """
    _refuse_others(directory, kinds)
    openssl = shutil.which("openssl")
    if openssl is None:
        raise CommandError("there is no `openssl` command here; the package openssl of every distribution has it")
    old_mask = os.umask(0o077)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".making-") as scratch:
            maker = _Maker(openssl, directory, Path(scratch))
            maker.make_authority()
            return [(machine, maker.make(machine, kinds, now, days, renew)) for machine in machines]
    except OSError as error:
        raise CommandError(f"{error.filename or directory}: {error.strerror}") from error
    finally:
        os.umask(old_mask)


class _Maker:
    """One run. What is made is made in `scratch`, and moved to its place when it is whole."""

    def __init__(self, openssl: str, directory: Path, scratch: Path) -> None:
        self._openssl, self._directory, self._scratch = openssl, directory, scratch

    def _run(self, *arguments: object) -> str:
        """Return what openssl prints. Raises CommandError with what it complains of; there is no secret in it."""
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
        return done.stdout

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

    def make(self, machine: Machine, kinds: Sequence[Kind], now: float, days: int, renew: bool) -> str:
        """Make a machine's certificates, with new keys, if it needs one; return made, renewed or kept."""
        place, until = self._directory / machine.hosts[0], now + days * 86_400 / RENEWED_BEFORE
        is_there = all((place / f"{kind.stem}.crt").exists() for kind in kinds)
        if is_there and not renew and all(self._is_good(kind, machine, place, until) for kind in kinds):
            return "kept"
        place.mkdir(exist_ok=True)
        for kind in kinds:
            self._make(kind, machine, days, place)
        shutil.copyfile(self._directory / "ca.crt", self._scratch / "copy.crt")
        (self._scratch / "copy.crt").rename(place / "ca.crt")
        return "renewed" if is_there else "made"

    def _make(self, kind: Kind, machine: Machine, days: int, place: Path) -> None:
        """Put a new key and its certificate into a machine's folder."""
        key, request, made = self._make_key("new.key"), self._scratch / "new.csr", self._scratch / "new.crt"
        config = self._write("new.cnf", _ANY_DISTINGUISHED_NAME.format(name=kind.role or machine.hosts[0][:64]))
        extensions = self._write("new.ext", _ROLE if kind.role else _MACHINE.format(names=machine.names))
        authority, authority_key = self._directory / "ca.crt", self._directory / "ca.key"
        self._run("req", "-new", "-sha256", "-config", config, "-key", key, "-out", request)
        self._run(
            "x509", "-req", "-sha256", "-in", request, "-CA", authority, "-CAkey", authority_key, "-days", days,
            "-set_serial", f"0x{secrets.randbits(126):x}", "-extfile", extensions, "-out", made,
        )  # fmt: skip
        key.rename(place / f"{kind.stem}.key")
        made.rename(place / f"{kind.stem}.crt")

    def _is_good(self, kind: Kind, machine: Machine, place: Path, until: float) -> bool:
        """Return whether a certificate is this authority's, names whom it should, and is good until then (unix seconds)."""
        authority = self._directory / "ca.crt"
        files = CertificateFiles(authority, place / f"{kind.stem}.crt", place / f"{kind.stem}.key")
        try:
            if (place / "ca.crt").read_bytes() != authority.read_bytes():
                return False
            if not kind.role:
                return all(prove(files, host) >= until for host in machine.hosts)
            make_contexts(files)  # key and certificate belong together
            self._run("verify", "-purpose", "sslclient", "-attime", int(until), "-CAfile", authority, files.certificate)
            subject = self._run("x509", "-in", files.certificate, "-noout", "-subject", "-nameopt", "RFC2253")
            return subject.strip() == f"subject=CN={kind.role}"
        except (CertificateError, CommandError, OSError):
            return False


def _refuse_others(directory: Path, kinds: Sequence[Kind]) -> None:
    """Raises CommandError if this authority has signed for the other purpose."""
    other, what = (DATABASE, "the database") if kinds == PEER else (PEER, "workers")
    found = next(directory.glob(f"*/{other[0].stem}.crt"), None)
    if found is not None:
        raise CommandError(
            f"{directory} is the authority for {what} ({found}): workers and the database need one each; name another"
        )
