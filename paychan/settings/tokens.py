"""Sellers' and operators' tokens: `STATE_DIR/sell-tokens`, a line for each: name, scope, SHA-256 of the token.

The token itself is written nowhere. It has 256 random bits, so its hash needs no salt and no slowness: nobody can try them out.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import ConfigError
from ..durable import replace_file

SELLERS_SCOPES = ("charge", "read")
"""charge: may sell, and read; read: may read. Worth nothing at the operator's API."""

OPERATORS_SCOPES = ("watch", "settle", "steer")
"""Each may do what those before it may: look; settle a channel; steer. Worth nothing at the sellers' door."""

SCOPES = SELLERS_SCOPES + OPERATORS_SCOPES

TOKENS_MAX = 1000
FILE_BYTES_MAX = 1 << 20
PREFIX = "pct_"
TOKEN_LENGTH_MIN = 40
"""Characters; what is shorter is none of ours."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")

log = logging.getLogger("paychan.tokens")


@dataclass(frozen=True)
class Token:
    """One row of the file. `digest`: 64 hexadecimal digits."""

    name: str
    scope: str
    digest: str


def tokens_file(state_dir: Path) -> Path:
    """Return where the tokens of a server are kept."""
    return state_dir / "sell-tokens"


def digest(token: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def make_token() -> str:
    """Return a new token: 256 random bits as text."""
    return PREFIX + secrets.token_urlsafe(32)


def read_tokens(path: Path) -> list[Token]:
    """Return the tokens in a file; none if it is not there. Raises ConfigError, which quotes nothing of it."""
    try:
        with open(path, "rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    rows = [line.split(" ") for line in raw.decode("ascii", "replace").splitlines()]
    for number, row in enumerate(rows, 1):
        if len(row) != 3 or not is_name(row[0]) or row[1] not in SCOPES or not _DIGEST.match(row[2]):
            raise ConfigError(f"{path}: line {number}: must be a name, a scope ({' or '.join(SCOPES)}) and a SHA-256")
    tokens = [Token(*row) for row in rows]
    if len(raw) > FILE_BYTES_MAX or len(tokens) > TOKENS_MAX or len({token.name for token in tokens}) < len(tokens):
        raise ConfigError(f"{path}: has a name twice, or more than {TOKENS_MAX} tokens")
    return tokens


class Tokens:
    """The tokens in a file as it is now, read again when it has changed: one that was revoked is worth nothing from then on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: list[Token] = []
        self._stamp: tuple[int, int, int] | None = None

    def find(self, presented: str) -> Token | None:
        """Return the row of a token. If the file cannot be read, none is good."""
        return find_token(self._newest(), presented)

    def _newest(self) -> list[Token]:
        try:
            status = os.stat(self._path)
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        except OSError:
            stamp = None
        if stamp is None:
            self._read = []
        elif stamp != self._stamp:
            try:
                self._read = read_tokens(self._path)
            except ConfigError as error:
                log.warning("no token is good: %s", error)
                self._read = []
        self._stamp = stamp
        return self._read


def write_tokens(path: Path, tokens: list[Token]) -> None:
    """Replace the file, durably, in one step; mode 0600. Raises OSError."""
    replace_file(path, "".join(f"{token.name} {token.scope} {token.digest}\n" for token in tokens))


def cookie_file(socket: Path) -> Path:
    """Return where the door at a Unix socket leaves a token for programs of the same user: who may read it could connect anyhow."""
    return socket.with_suffix(".cookie")


def keep_cookie(path: Path) -> str:
    """Return the token in the cookie file, made if it is not there; mode 0600. It stays the same, for what is signed with it is
    good for longer than a process lives. Raises OSError."""
    with suppress(FileNotFoundError):
        found = path.read_text("ascii", "replace").strip()
        if len(found) > TOKEN_LENGTH_MIN:
            return found
    made, temporary = make_token(), path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(f"{made}\n")
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    return made


def is_cookie(cookie: str, presented: str) -> bool:
    """Return whether a token is the cookie; as long for a wrong one as for the right one."""
    return hmac.compare_digest(digest(cookie), digest(presented))


def is_name(text: str) -> bool:
    """Return whether a token can be called so."""
    return bool(_NAME.match(text))


def find_token(tokens: list[Token], presented: str) -> Token | None:
    """Return the row of a token; as long for a wrong one as for a right one, wherever it stands."""
    wanted, found = digest(presented), None
    for token in tokens:
        if hmac.compare_digest(token.digest, wanted):
            found = token
    return found
